#!/bin/sh
# In a machine: puts profiler-matrix on everybody's PATH.
set -eu
here=/opt/profiler-matrix
if [ ! -x $here/bin/profiler ]; then
	echo "$here is empty: run \`cargo xtask bundle\` on the host, then \`vagrant rsync\` and \`vagrant provision\`" >&2
	exit 1
fi
install -m 755 $here/profiler-matrix /usr/local/bin/profiler-matrix
# sudo's path and that of a login over ssh differ from distribution to distribution.
ln -sf /usr/local/bin/profiler-matrix /usr/bin/profiler-matrix
