# Ends the processes of a command, and removes a file, when its input ends. Only the process that has
# started the command has the other end. It writes there what there is to do; "done" if there is nothing.

# The PATH of whoever runs the command may be empty, or lead elsewhere.
PATH=${PATH:+$PATH:}/usr/bin:/bin

id= root= group= inode= file= grace=20
while IFS= read -r line; do
	value=${line#* }
	case $line in
	id\ *) id=$value ;;
	root\ *) root=$value ;;
	group\ *) group=$value ;;
	grace\ *) grace=$value ;;
	inode\ *) inode=$value ;;
	file\ *) file=$value ;;
	done) exit 0 ;;
	esac
done

# table prints the id, the parent and the group of each process, except of those that have ended.
table() {
	if [ -e /proc/self/stat ]; then
		# A shell reads a file byte by byte, which takes five times as long. A name, in the
		# parentheses, may hold anything.
		head -qn 1 /proc/[0-9]*/stat 2>/dev/null | sed -n 's/^\([0-9]*\) (.*) [^Z] \([0-9]*\) \([0-9]*\) .*/\1 \2 \3/p'
	else
		ps -axo pid=,ppid=,pgid=,stat= | while read -r pid parent pgrp stat; do
			case $stat in
			Z*) ;;
			*) echo "$pid $parent $pgrp" ;;
			esac
		done
	fi
}

# marked prints the ids of the processes that have the command's id in their environment.
marked() {
	[ -n "$id" ] || return 0
	if [ -e /proc/self/environ ]; then
		grep -lsF -e "$id" /proc/[0-9]*/environ | while IFS=/ read -r _ _ pid _; do
			echo "$pid"
		done
	else
		ps -axwwE -o pid=,command= 2>/dev/null | while read -r pid rest; do
			case $rest in
			*"$id"*) echo "$pid" ;;
			esac
		done
	fi
}

# look sets found to the ids of the command's processes: those with its id, its group, itself, and all
# that these have started.
look() {
	found=" "
	for pid in $(marked); do
		found="$found$pid "
	done
	processes=$(table)
	more=1
	while [ -n "$more" ]; do
		more=
		while read -r pid parent pgrp; do
			[ -n "$pid" ] || continue
			case $found in *" $pid "*) continue ;; esac
			if [ "$pid" = "$root" ] || [ "$pgrp" = "$group" ]; then
				found="$found$pid " more=1
				continue
			fi
			case $found in *" $parent "*) found="$found$pid " more=1 ;; esac
		done <<-END
			$processes
		END
	done
	[ "$found" != " " ]
}

if [ -n "$id" ] && look; then
	# shellcheck disable=SC2086 # several ids
	{
		kill -s TERM $found
		kill -s CONT $found
	} 2>/dev/null
	while look && [ "$grace" -gt -50 ]; do
		# shellcheck disable=SC2086 # several ids
		[ "$grace" -gt 0 ] || kill -s KILL $found 2>/dev/null
		grace=$((grace - 1))
		sleep 0.1
	done
fi

# Another process may have put a file of its own in its place.
if [ -n "$file" ]; then
	# shellcheck disable=SC2012 # of one file, whose name is known
	read -r now _ <<-END
		$(ls -di -- "$file" 2>/dev/null)
	END
	[ "$now" != "$inode" ] || rm -f -- "$file"
fi
exit 0
