#!/bin/sh
# Start Redis with users whose passwords are in the environment (only their hashes are written, into a file in memory),
# load the programs' Lua scripts, and only then let clients in: no user may load scripts.
#
#   start.sh CONF TEMPLATE [FLAG...]
#
# /tmp must be in memory, /scripts holds pipeline/bus/lua/*.lua. With REDIS_TLS_KEY and REDIS_TLS_CERTIFICATE (base64 of
# PEM) Redis also serves TLS, on port 6380. With REDIS_NODES it is a node of a cluster: the names of all six nodes, each
# that of a host, or HOST.DOMAIN. With REDIS_LABELLER_PASSWORD there is a user who publishes pictures to label. If a
# password is missing, short, or not fit for a URL, the script prints one line and exits with status 1; later it exits
# with the status of Redis.
set -eu
umask 077
ulimit -c 0 # a core dump would hold pixels

if [ $# -lt 2 ]; then
  echo "usage: start.sh CONF TEMPLATE [FLAG...]" >&2
  exit 2
fi
conf=$1
template=$2
shift 2
nodes=${REDIS_NODES:-}
replica_password=${REDIS_REPLICA_PASSWORD:-}
files=$(dirname "$template")
run=/tmp/redis
users=$run/users.acl
socket=$run/start.sock
mkdir -p "$run"

labeller=${REDIS_LABELLER_PASSWORD:+"$files/labeller.acl.template"}
cat "$template" ${nodes:+"$files/replica.acl.template"} ${labeller:+"$labeller"} | sed '/^#/d; /^[[:space:]]*$/d' >"$users"
for role in $(grep -o '{[a-z]*_sha256}' "$users" | sort -u | sed 's/^{//; s/_sha256}$//'); do
  name=REDIS_$(printf %s "$role" | tr '[:lower:]' '[:upper:]')_PASSWORD
  [ "$role" != jobs ] || name=JOBS_PASSWORD
  eval "password=\${$name:-}"
  wrong=
  [ "${#password}" -ge 16 ] || wrong="is not set or has fewer than 16 characters"
  case $password in
    *[!A-Za-z0-9._~-]*) wrong="holds other characters than letters, digits and . _ ~ -, which are not allowed in a URL" ;;
  esac
  if [ -n "$wrong" ]; then
    echo "start.sh: $name $wrong: remove its line from .env and run \`make env\`" >&2
    exit 1
  fi
  sha256=$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)
  sed -i "s/{${role}_sha256}/$sha256/g" "$users"
  unset "$name" password
done

# TLS
if [ -n "${REDIS_TLS_KEY:-}" ]; then
  printf %s "$REDIS_TLS_KEY" | base64 -d >"$run/tls.key"
  printf %s "${REDIS_TLS_CERTIFICATE:-}" | base64 -d >"$run/tls.pem"
  unset REDIS_TLS_KEY REDIS_TLS_CERTIFICATE
  # clients have passwords instead of certificates, but Redis requires a certificate authority (CA)
  set -- --tls-port 6380 --tls-auth-clients no --tls-key-file "$run/tls.key" \
    --tls-cert-file "$run/tls.pem" --tls-ca-cert-file "$run/tls.pem" "$@"
fi

# A user for this start, with a random password; until it is deleted, clients reach Redis by loopback and socket only.
starter=$(head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1)
sha256=$(printf %s "$starter" | sha256sum | cut -d ' ' -f 1)
echo "user start on #$sha256 -@all +ping +script|load +config|set +acl|deluser" >>"$users"
ask() {
  REDISCLI_AUTH=$starter redis-cli -s "$socket" --user start "$@" 2>&1
}

# A cluster's bus cannot be opened later, so a node listens on it from its start, without a port for clients.
if [ -n "$nodes" ]; then
  . "$files/join.sh"
  name=$(printf '%s\n' $nodes | sed -n "/^$(uname -n)\(\..*\)*$/p")
  place=$(printf '%s\n' $nodes | grep -n -x -F "$name" | cut -d : -f 1)
  if [ -z "$name" ]; then
    echo "start.sh: REDIS_NODES does not name this host, $(uname -n)" >&2
    exit 1
  fi
  echo "user join on #$sha256 -@all +ping +cluster|nodes +cluster|meet +cluster|addslotsrange" \
    "+cluster|replicate +cluster|failover +cluster|forget" >>"$users"
  printf 'include %s\nmasterauth %s\ncluster-announce-hostname %s\n' "$files/cluster.conf" "$replica_password" "$name" \
    | cat "$conf" - >"$run/node.conf"
  introduce >"$run/nodes.conf"
  conf=$run/node.conf
  set -- --port 0 "$@"
else
  set -- --bind 127.0.0.1 "$@"
fi
unset replica_password

redis-server "$conf" --unixsocket "$socket" --aclfile "$users" "$@" &
redis=$!
trap 'kill -TERM "$redis" 2>/dev/null || true' TERM INT

until [ "$(ask ping)" = PONG ]; do
  if ! kill -0 "$redis" 2>/dev/null; then # it has printed why
    wait "$redis"
    exit 1
  fi
  sleep 0.1
done
for script in /scripts/*.lua; do
  [ "$script" != /scripts/common.lua ] || continue
  cat /scripts/common.lua "$script" >"$run/script" # as the programs send it
  answer=$(ask -x script load <"$run/script") || answer=
  if [ "$answer" != "$(sha1sum <"$run/script" | cut -d ' ' -f 1)" ]; then
    echo "start.sh: Redis does not load $script: ${answer:-no answer}" >&2
    kill -TERM "$redis" 2>/dev/null || true
    wait "$redis" || true
    exit 1
  fi
done
if [ -n "$nodes" ]; then
  until join; do
    kill -0 "$redis" 2>/dev/null || exit 1
    sleep 1
  done
  while sleep 1 && kill -0 "$redis" 2>/dev/null; do join || true; done &
  ask config set port 6379 >/dev/null
else
  ask config set bind '* -::*' >/dev/null
fi
ask acl deluser start >/dev/null
sed -i '/^user start /d' "$users"

while :; do # a signal ends one wait, not Redis
  status=0
  wait "$redis" || status=$?
  kill -0 "$redis" 2>/dev/null || exit "$status"
done
