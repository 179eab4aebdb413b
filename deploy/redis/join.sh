# Make this node a part of its cluster, and keep it one. start.sh reads this file and calls `join` once a second.
#
# $nodes are the names of all nodes in order, $name is that of this one, $place is 1 for the first of them; $socket and
# $starter are how `join` asks Redis.
#
# The slots are in three equal parts, the first of which is held by the first node or the fourth, and so on. A node that
# starts is a new one without slots, because it has forgotten everything. It becomes a replica of the node that holds
# its part. If nobody holds it, the first of the two takes it, but not at once: a replica of the node that had this name
# before may take over yet. Only then are clients and replicas let in.

rounds=0
patience=8 # rounds; a replica takes over in 3 to 5 s

ask_cluster() {
  REDISCLI_AUTH=$starter redis-cli -s "$socket" --user join cluster "$@"
}

# Take one step. The status is 0 if the node holds slots or is a replica.
join() {
  rounds=$((rounds + 1))
  joined=1
  ask_cluster nodes >"$run/view" || return 1
  awk -v nodes="$nodes" -v place="$place" -v patient="$((rounds <= patience))" "$decide" "$run/view" >"$run/steps"
  while read -r step argument more; do
    case $step in
      joined) joined=0 ;;
      meet)
        address=$(getent hosts "$argument" | cut -d ' ' -f 1 | head -n 1)
        [ -z "$address" ] || ask_cluster meet "$address" 6379 16379 >/dev/null
        ;;
      *) ask_cluster "$step" "$argument" $more >/dev/null ;;
    esac
  done <"$run/steps"
  return "$joined"
}

# Print what a new node knows of its cluster: itself. Its epoch is its place, below that of each node that has ever
# taken over, so it cannot take slots from one.
introduce() {
  id=$(head -c 32 /dev/urandom | sha1sum | cut -d ' ' -f 1)
  echo "$id :0@0 myself,master - 0 0 $place connected"
  echo "vars currentEpoch 6 lastVoteEpoch 0"
}

# The answer of CLUSTER NODES in, steps out. Its lines: id address,name flags primary sent received epoch link slots...
decide='
function first_slot(part) { return int((part * 16384 + 1) / 3) }
BEGIN { part = (place - 1) % 3; first = first_slot(part); last = first_slot(part + 1) - 1 }
$3 ~ /handshake/ { next }
{
  split($2, parts, ",")
  name[$1] = parts[2]
  if ($3 ~ /noaddr|fail/) gone[$1] = 1
  else if ($4 != "-") followed[$4] = 1
  if ($3 ~ /myself/) { role = $3 ~ /slave/ ? "replica" : NF > 8 ? "primary" : "new"; own_primary = $4 }
  if ($3 ~ /myself/ || (!($1 in gone) && $8 == "connected")) here[parts[2]] = 1
  for (field = 9; field <= NF; field++) {
    if ($field ~ /^\[/) continue # a slot that is being moved
    count = split($field, range, "-")
    if (range[1] + 0 <= first && first <= range[count] + 0) holder = $1
  }
}
END {
  if (role == "") exit # no answer
  for (number = split(nodes, all, " "); number > 0; number--) if (!(all[number] in here)) print "meet", all[number]
  # A node that is gone while another one has its name never comes back. Its replica takes over without an election: the
  # others do not see a node fail whose address has been taken, and a majority of the primaries may be gone like this.
  for (id in gone) {
    if (name[id] == "" || !(name[id] in here)) continue
    if (role == "replica" && id == own_primary) print "failover", "takeover"
    else if (!(id in followed)) print "forget", id
  }
  if (role == "new" && holder != "" && !(holder in gone)) print "replicate", holder
  if (role == "new" && holder == "" && place <= 3 && !patient) print "addslotsrange", first, last
  if (role != "new") print "joined"
}'
