#!/bin/sh
# Runs after an installation and after an upgrade, called by dpkg, rpm or apk.
set -e

if ! id -u rowhook >/dev/null 2>&1; then
	if command -v systemd-sysusers >/dev/null; then
		systemd-sysusers rowhook.conf
	elif command -v useradd >/dev/null; then
		useradd --system --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin --comment Rowhook rowhook
	else # BusyBox
		addgroup -S rowhook
		adduser -S -D -H -h / -s /sbin/nologin -g Rowhook -G rowhook rowhook
	fi
fi

# What runs takes up the new program. Nothing is started that did not run.
failed() { echo "rowhook: restarting the service failed, see: $1" >&2; }
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl try-restart rowhook.service 'rowhook@*.service' || failed "journalctl -u 'rowhook*'"
elif [ -d /run/openrc ] && command -v rc-service >/dev/null; then
	rc-service --ifstarted rowhook restart || failed "rc-service rowhook status"
fi

# The second argument of dpkg is the version before, the first of rpm the number of installed versions.
case "${1:-}:${2:-}" in
configure: | 1:*)
	echo "Rowhook is installed, and not started yet: write DATABASE_URL into /etc/rowhook/environment and triggers into"
	echo "/etc/rowhook/rowhook.yaml, then: systemctl enable --now rowhook"
	;;
esac
