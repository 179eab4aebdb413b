#!/bin/sh
# Start Redis with users whose passwords are in the environment: their hashes go into a file in memory, they nowhere.
#
#   start.sh CONF TEMPLATE [FLAG...]
#
# /run/redis must be a tmpfs. A password that is missing or short ends it with one line and status 1. The same as
# scripts/redis_users.py, for images without Python.
set -eu
umask 077
conf=$1
template=$2
shift 2
users=/run/redis/users.acl

sed '/^#/d; /^[[:space:]]*$/d' "$template" >"$users"
for role in $(grep -o '{[a-z]*_sha256}' "$users" | sort -u | sed 's/^{//; s/_sha256}$//'); do
  name=REDIS_$(printf %s "$role" | tr '[:lower:]' '[:upper:]')_PASSWORD
  [ "$role" != jobs ] || name=JOBS_PASSWORD
  eval "password=\${$name:-}"
  if [ "${#password}" -lt 16 ]; then
    echo "start.sh: $name is not set or has fewer than 16 characters: \`make env\` draws one into .env" >&2
    exit 1
  fi
  sha256=$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)
  sed -i "s/{${role}_sha256}/$sha256/g" "$users"
  unset "$name" password
done
ulimit -c 0 # a core dump would hold pixels
exec redis-server "$conf" --aclfile "$users" "$@"
