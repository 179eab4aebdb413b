#!/bin/sh
# Start Redis with users whose passwords are in the environment (only their hashes are written, into a file in memory),
# load the programs' Lua scripts, and only then let clients in: no user may load scripts.
#
#   start.sh CONF TEMPLATE [FLAG...]
#
# /tmp must be in memory, /scripts holds pipeline/bus/lua/*.lua. With REDIS_TLS_KEY and REDIS_TLS_CERTIFICATE (base64 of
# PEM) Redis also serves TLS, on port 6380. If a password is missing, short, or not fit for a URL, the script prints one
# line and exits with status 1; later it exits with the status of Redis.
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
run=/tmp/redis
users=$run/users.acl
socket=$run/start.sock
mkdir -p "$run"

sed '/^#/d; /^[[:space:]]*$/d' "$template" >"$users"
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

# A user for this start, with a random password; until it is deleted, Redis listens on loopback and the socket only.
starter=$(head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1)
sha256=$(printf %s "$starter" | sha256sum | cut -d ' ' -f 1)
echo "user start on #$sha256 -@all +ping +script|load +config|set +acl|deluser" >>"$users"
ask() {
  REDISCLI_AUTH=$starter redis-cli -s "$socket" --user start "$@" 2>&1
}

redis-server "$conf" --bind 127.0.0.1 --unixsocket "$socket" --aclfile "$users" "$@" &
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
  answer=$(ask -x script load <"$script") || answer=
  if [ "$answer" != "$(sha1sum <"$script" | cut -d ' ' -f 1)" ]; then
    echo "start.sh: Redis does not load $script: ${answer:-no answer}" >&2
    kill -TERM "$redis" 2>/dev/null || true
    wait "$redis" || true
    exit 1
  fi
done
ask config set bind '* -::*' >/dev/null
ask acl deluser start >/dev/null
sed -i '/^user start /d' "$users"

while :; do # a signal ends one wait, not Redis
  status=0
  wait "$redis" || status=$?
  kill -0 "$redis" 2>/dev/null || exit "$status"
done
