#!/bin/sh
# Runs after a removal. Rowhook writes nothing to disk, so nothing is left but the configuration, which dpkg
# deletes at a purge.
set -e

if [ "${1:-}" != upgrade ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
if [ "${1:-}" = purge ] && id -u rowhook >/dev/null 2>&1; then
	userdel rowhook || echo "rowhook: the user rowhook is left: userdel rowhook" >&2
fi
