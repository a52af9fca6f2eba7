# Runs a container for one task of a job, and leaves none behind. usage: bash -c THIS NAME podman|docker OPTIONS…
# Slurm signals every process of a task at once, and with them the helpers by which a client would pass a signal on: a
# client that passes SIGCONT on while SIGTERM comes gives up. So only this shell does, and a client that dies is replaced.
runtime=$1; shift
name=lmbatch-${SLURM_JOB_ID:-0}-${SLURM_RESTART_COUNT:-0}-${SLURM_STEP_ID:-0}-${SLURM_PROCID:-$$}
# What this shell has just started may be hit as well: once more, then.
ask() { "$runtime" "$@" 2>/dev/null || "$runtime" "$@" 2>/dev/null; }
state() { ask inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$name"; }
alive() { kill -0 "$client" 2>/dev/null; }
# After SIGTERM Slurm's SIGKILL follows in KillWait seconds, and the container would outlive it.
remove_before_kill() {
  seconds=$(scontrol show config 2>/dev/null | sed -n 's/^KillWait *= *\([0-9]*\).*/\1/p')
  seconds=${seconds:-30}
  sleep $((seconds > 20 ? seconds - 5 : seconds - 2))
  ask kill --signal KILL "$name"  # rm alone of podman would first ask, and wait for 10 s
  ask rm --force "$name"
}
notice='' terminated='' timer=''
for signal in INT USR1 USR2; do trap "notice=$signal" "$signal"; done
trap 'notice=TERM terminated=yes' TERM
"$runtime" run --sig-proxy=false --name "$name" --label "lmbatch.job=${SLURM_JOB_ID:-0}" "$@" &
client=$!
while :; do
  wait "$client"; code=$?
  if [ -n "$terminated" ] && [ -z "$timer" ]; then remove_before_kill >/dev/null 2>&1 & timer=$!; fi
  while [ -n "$notice" ]; do
    signal=$notice notice=''
    until "$runtime" kill --signal "$signal" "$name" >/dev/null 2>&1; do
      alive || [[ $(state) == running* ]] || break  # it has ended; while the client lives, it may not have begun
      sleep 0.1
    done
  done
  alive && continue
  read -r status ended < <(state)
  case $status in
    running | stopping) "$runtime" attach --no-stdin --sig-proxy=false "$name" & client=$! ;;
    exited | stopped) code=$ended; break ;;  # a signal may have ended the client first, or only the wait for it
    *) break ;;  # it has never begun
  esac
done
[ -z "$timer" ] || kill "$timer" 2>/dev/null
# Not by --rm, which would take the exit code along.
ask rm --force "$name" >/dev/null
exit "$code"
