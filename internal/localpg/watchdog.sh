# Cleans up after a localpg process. Only that process has the other end of the pipe at standard input.
# It writes there what is running. The end of the input means that the process is gone, or that it has
# stopped its server itself.
# $1: data directory  $2: directory to remove  $3: first signal to the postmaster

# The PATH of whoever runs the server may be empty, or lead elsewhere.
PATH=${PATH:+$PATH:}/usr/bin:/bin

state=stopped pid=
while read -r state pid; do
	last=$state lastpid=$pid
done
state=${last:-stopped} pid=$lastpid

# The process may have died before it wrote the postmaster's id, or the postmaster before it wrote its
# file.
tries=0
case $state in
starting | postmaster)
	while [ $tries -lt 20 ]; do
		if [ -f "$1/postmaster.pid" ]; then
			read -r written <"$1/postmaster.pid"
			[ "$state" = starting ] && pid=$written
			[ "$pid" = "$written" ] && break
		fi
		if [ "$state" = postmaster ] && ! kill -0 "$pid" 2>/dev/null; then
			break
		fi
		tries=$((tries + 1))
		sleep 0.1
	done
	;;
initdb)
	kill -TERM "$pid" 2>/dev/null
	;;
esac

# gone waits up to $1 tenths of a second until the process has ended.
gone() {
	left=$1
	while kill -0 "$pid" 2>/dev/null; do
		[ "$left" -gt 0 ] || return 1
		left=$((left - 1))
		sleep 0.1
	done
}

if [ "$state" != stopped ] && [ -n "$pid" ]; then
	if [ "$state" != initdb ]; then
		kill -s "$3" "$pid" 2>/dev/null
	fi
	gone 300 || kill -s QUIT "$pid" 2>/dev/null
	gone 100 || kill -s KILL "$pid" 2>/dev/null
	gone 50
	case $1 in
	"$2"/*) ;; # it is removed with the rest
	*)
		if [ -f "$1/postmaster.pid" ]; then
			read -r written <"$1/postmaster.pid"
			[ "$written" = "$pid" ] && rm -f "$1/postmaster.pid"
		fi
		;;
	esac
fi

# A postmaster that was killed with SIGKILL has left its file, and the shared memory that it names. The
# next start on the same data removes both; temporary data has none.
case $1 in
"$2"/*)
	if [ -f "$1/postmaster.pid" ]; then
		line=0
		while read -r _ segment; do
			line=$((line + 1))
			[ $line != 7 ] || ipcrm -m "$segment" 2>/dev/null
		done <"$1/postmaster.pid"
	fi
	;;
esac

# A child of initdb or of a killed postmaster may still be writing.
tries=0
while [ -e "$2" ] && [ $tries -lt 50 ]; do
	rm -rf -- "$2" 2>/dev/null || sleep 0.1
	tries=$((tries + 1))
done
