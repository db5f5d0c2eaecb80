
# Serve one replica, and keep its URL in a file of the folder for as long as the server is healthy.
replica() {
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
  file=$(hostname)-$port
  vllm serve "$MODEL" --served-model-name "$NAME" --host "$HOST" --port "$port" \
    --tensor-parallel-size "$GPUS" --enable-prompt-tokens-details "${OPTIONS[@]}" &
  server=$!
  trap 'rm -f "$URLS/$file" "$URLS/.$file"; kill $server 2>/dev/null; wait $server' EXIT
  trap 'exit 143' TERM INT HUP
  until curl -sf "http://$HOST:$port/health" >/dev/null; do
    kill -0 $server 2>/dev/null || exit 1
    sleep 2 & wait $!
  done
  echo "http://$HOST:$port/v1" >"$URLS/.$file" && mv "$URLS/.$file" "$URLS/$file"
  wait $server
}

mkdir -p "$URLS"
if [ -n "${SLURM_JOB_ID:-}" ]; then
  replica
else
  trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
  trap 'exit 143' TERM INT HUP
  for ((i = 0; i < REPLICAS; i++)); do
    CUDA_VISIBLE_DEVICES=$(seq -s, $((i * GPUS)) $((i * GPUS + GPUS - 1))) replica &
  done
  wait
fi
