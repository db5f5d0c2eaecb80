set -euo pipefail

# Submit a job that runs the recipe: its command, then options. Exit code 3 means that parts of
# other tasks are missing; the next jobs make them.
job() {
  sbatch --parsable --job-name="$NAME" "${OPTIONS[@]}" "${@:2}" \
    --wrap "$1 || { code=\$?; [ \$code = 3 ] || exit \$code; }"
}

one="$PYTHON $RUN"
if [ $((NODES * GPUS)) -gt 1 ]; then
  one="srun $PYTHON -m torch.distributed.run --nnodes=$NODES --nproc-per-node=$GPUS"
  one="$one --rdzv-backend=c10d --rdzv-id=\$SLURM_JOB_ID"
  one="$one --rdzv-endpoint=\$(hostname):\$((20000 + SLURM_JOB_ID % 20000)) $RUN"
fi

if [ "$ROUNDS" -gt 0 ]; then last=$(job "$one --shard 0/$SHARDS" "${ALONE[@]}"); fi
for ((round = 1; round <= ROUNDS; round++)); do
  last=$(job "$PYTHON $RUN --shard \$SLURM_ARRAY_TASK_ID/$SHARDS" "${EACH[@]}" \
    --array="1-$SHARDS" --dependency="afterok:$last" --kill-on-invalid-dep=yes)
  if [ "$round" -lt "$ROUNDS" ]; then
    last=$(job "$one --shard 0/$SHARDS" "${ALONE[@]}" --dependency="afterany:$last")
  fi
done
# The last job makes whatever is left, also where a task was killed.
last=$(job "$one" "${ALONE[@]}" ${last:+--dependency="afterany:$last"})
echo "the last job is $last; its output is in slurm-$last.out"
