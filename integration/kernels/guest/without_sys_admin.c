/*
 * Runs a command as root that has every capability but CAP_SYS_ADMIN.
 * usage: without_sys_admin COMMAND [ARGUMENT...]
 */
#include <linux/capability.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: %s COMMAND [ARGUMENT...]\n", argv[0]);
		return 2;
	}
	/* what is not in the bounding set is gone with the next exec, root's too */
	if (prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0)) {
		perror("cannot drop CAP_SYS_ADMIN");
		return 1;
	}
	execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 127;
}
