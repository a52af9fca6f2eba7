# Functions of scripts that see to it that no container is left behind; "$runtime" is podman or docker.
# No exit code proves a removal: podman ends with 0 when Slurm's SIGTERM hits it, and leaves a container that it was at
# half removed ("Removing"). SIGKILL leaves the same, and a mount may be busy for a moment. What counts is the runtime's
# own word that it knows no such container, and until then it is asked again.
gone() {
  local said
  said=$(timeout 30 "$runtime" inspect --type container "$1" 2>&1 >/dev/null)
  [[ ${said,,} == *"no such container"* ]]
}

# remove NAME [SECONDS]: kill it, and remove it for good. Gives up after a minute, and says so.
remove() {
  local end=$((SECONDS + ${2:-60}))
  until gone "$1"; do
    if ((SECONDS >= end)); then
      echo "lmbatch: the container $1 cannot be removed from $HOSTNAME. Remedy: $runtime rm --force $1" >&2
      return 1
    fi
    "$runtime" kill --signal KILL "$1" >/dev/null 2>&1  # rm alone of podman would first ask, and wait for 10 s
    timeout 30 "$runtime" rm --force "$1" >/dev/null 2>&1 || sleep 0.5
  done
}

# Names of the containers of a job on this node, in any state.
containers_of() { "$runtime" ps --all --filter "label=lmbatch.job=$1" --format '{{.Names}}' 2>/dev/null; }
