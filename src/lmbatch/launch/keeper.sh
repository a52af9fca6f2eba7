# Runs a container for one task of a job, and leaves none behind; removing.sh stands before it.
# usage: bash -c BOTH NAME podman|docker OPTIONS…
# Slurm signals every process of a task at once, and with them the helpers by which a client would pass a signal on: a
# client that passes SIGCONT on while SIGTERM comes gives up. So only this shell does, and a client that dies is replaced.
runtime=$1; shift
attempt=lmbatch-${SLURM_JOB_ID:-0}-${SLURM_RESTART_COUNT:-0}-
name=$attempt${SLURM_STEP_ID:-0}-${SLURM_PROCID:-$$}
# "STATUS CODE", or nothing if there is no such container. What asks may be hit as well, and say nothing: once more, then.
state() {
  local said
  for _ in {1..50}; do
    said=$("$runtime" inspect --type container --format '{{.State.Status}} {{.State.ExitCode}}' "$name" 2>/dev/null)
    [ -z "$said" ] || { echo "$said"; return; }
    ! gone "$name" || return
    sleep 0.1
  done
}
alive() { kill -0 "$client" 2>/dev/null; }
# After SIGTERM Slurm's SIGKILL follows in KillWait seconds, and the container would outlive it.
remove_before_kill() {
  trap '' TERM
  seconds=$(scontrol show config 2>/dev/null | sed -n 's/^KillWait *= *\([0-9]*\).*/\1/p')
  seconds=${seconds:-30}
  sleep $((seconds > 20 ? seconds - 5 : seconds - 2))
  remove "$name"
}
notice='' terminated='' timer=''
for signal in INT USR1 USR2; do trap "notice=$signal" "$signal"; done
trap 'notice=TERM terminated=yes' TERM
# What an earlier attempt of this job has left, whose keeper was killed before it had tidied up.
if [ -n "${SLURM_JOB_ID:-}" ]; then
  for left in $(containers_of "$SLURM_JOB_ID"); do [[ $left == "$attempt"* ]] || remove "$left"; done
fi
"$runtime" run --sig-proxy=false --name "$name" --label "lmbatch.job=${SLURM_JOB_ID:-0}" "$@" &
client=$!
while :; do
  wait "$client"; code=$?
  if [ -n "$terminated" ] && [ -z "$timer" ]; then remove_before_kill >/dev/null & timer=$!; fi
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
[ -z "$timer" ] || kill -KILL "$timer" 2>/dev/null
# Not by --rm, which would take the exit code along.
remove "$name"
exit "$code"
