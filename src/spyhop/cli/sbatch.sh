set -euo pipefail

# Submit a job that runs the recipe: its command, then options. Exit code 3 means that parts of
# other tasks are missing; the next jobs make them.
job() {
  sbatch --parsable --job-name="$NAME" "${OPTIONS[@]}" "${@:2}" \
    --wrap "$1 || { code=\$?; [ \$code = 3 ] || exit \$code; }"
}

alone=("--nodes=$NODES" --ntasks-per-node=1)
each=()
if [ "$GPUS" -gt 0 ]; then alone+=("--gpus-per-node=$GPUS") each=(--gpus-per-node=1); fi
one="$PYTHON $RUN"
if [ "$NODES" -gt 1 ] || [ "$GPUS" -gt 1 ]; then
  one="srun $PYTHON -m torch.distributed.run --nnodes=$NODES --nproc-per-node=$((GPUS > 1 ? GPUS : 1))"
  one="$one --rdzv-backend=c10d --rdzv-id=\$SLURM_JOB_ID"
  one="$one --rdzv-endpoint=\$(hostname):\$((20000 + SLURM_JOB_ID % 20000)) $RUN"
fi

if [ "$ROUNDS" -gt 0 ]; then last=$(job "$one --shard 0/$SHARDS" "${alone[@]}"); fi
for ((round = 1; round <= ROUNDS; round++)); do
  last=$(job "$PYTHON $RUN --shard \$SLURM_ARRAY_TASK_ID/$SHARDS" "${each[@]}" \
    --array="1-$SHARDS" --dependency="afterok:$last" --kill-on-invalid-dep=yes)
  if [ "$round" -lt "$ROUNDS" ]; then
    last=$(job "$one --shard 0/$SHARDS" "${alone[@]}" --dependency="afterany:$last")
  fi
done
# The last job makes whatever is left, also where a task was killed.
last=$(job "$one" "${alone[@]}" ${last:+--dependency="afterany:$last"})
echo "the last job is $last; its output is in slurm-$last.out"
