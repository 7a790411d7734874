#!/bin/sh
# Runs before a removal, and with dpkg and rpm before an upgrade, too.
set -e

case "${1:-}" in
upgrade | failed-upgrade | deconfigure | 1) exit 0 ;; # dpkg's words, and rpm's number of versions that stay
esac

if [ -d /run/systemd/system ]; then
	systemctl disable --now rowhook.service
	for link in /etc/systemd/system/*.wants/rowhook@*.service; do
		[ -L "$link" ] || continue
		systemctl disable "$(basename "$link")"
	done
	systemctl stop 'rowhook@*.service'
elif [ -d /run/openrc ] && command -v rc-service >/dev/null; then
	rc-service --ifstarted rowhook stop
	rc-update --quiet delete rowhook || true # it fails where the service is in no runlevel
fi
