# Runs a container for one task of a job, and leaves none behind. usage: bash -c THIS NAME podman|docker OPTIONS…
# Slurm signals every process of a task at once, and with them the helpers by which a client would pass a signal on: a
# client that passes SIGCONT on while SIGTERM comes gives up. So only this shell does, and a client that dies is replaced.
runtime=$1; shift
name=lmbatch-${SLURM_JOB_ID:-0}-${SLURM_RESTART_COUNT:-0}-${SLURM_STEP_ID:-0}-${SLURM_PROCID:-$$}
runs() { [ "$("$runtime" inspect --format '{{.State.Running}}' "$name" 2>/dev/null)" = true ]; }
alive() { kill -0 "$client" 2>/dev/null; }
# After SIGTERM Slurm's SIGKILL follows in KillWait seconds, and the container would outlive it.
remove_before_kill() {
  seconds=$(scontrol show config 2>/dev/null | sed -n 's/^KillWait *= *\([0-9]*\).*/\1/p')
  seconds=${seconds:-30}
  sleep $((seconds > 20 ? seconds - 5 : seconds - 2))
  "$runtime" kill --signal KILL "$name"  # rm alone of podman would first ask, and wait for 10 s
  "$runtime" rm --force "$name"
}
notice='' terminated='' timer=''
for signal in INT USR1 USR2; do trap "notice=$signal" "$signal"; done
trap 'notice=TERM terminated=yes' TERM
"$runtime" run --rm --sig-proxy=false --name "$name" --label "lmbatch.job=${SLURM_JOB_ID:-0}" "$@" &
client=$!
while :; do
  wait "$client"; code=$?
  if [ -n "$terminated" ] && [ -z "$timer" ]; then remove_before_kill >/dev/null 2>&1 & timer=$!; fi
  while [ -n "$notice" ]; do
    signal=$notice notice=''
    until "$runtime" kill --signal "$signal" "$name" >/dev/null 2>&1; do
      alive || runs || break  # it has ended; while the client lives, it may not have begun
      sleep 0.1
    done
  done
  alive && continue
  runs || break
  "$runtime" attach --no-stdin --sig-proxy=false "$name" & client=$!
done
[ -z "$timer" ] || kill "$timer" 2>/dev/null
# --rm removes it also where this shell is killed; here, where it has not happened yet or the client was.
ended=$("$runtime" inspect --format '{{.State.ExitCode}}' "$name" 2>/dev/null) && code=$ended
"$runtime" rm --force "$name" >/dev/null 2>&1
exit "$code"
