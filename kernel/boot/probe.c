/* Times a few kernel paths in the boot test: prints nanoseconds of CLOCK_MONOTONIC, which under QEMU's -icount are
 * instructions. Static, without threads; what it measures is named by its first argument. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* `count` times: a child that starts this program again and ends. */
static int fork_exec(int count)
{
	while (count-- > 0) {
		pid_t child = fork();
		int status;

		if (child == 0) {
			execl("/bin/probe", "probe", "nothing", NULL);
			_exit(127);
		}
		if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
			return 1;
	}
	return 0;
}

/* Write `mib` MiB of new pages to a file. */
static int write_file(int mib, const char *path)
{
	static char block[1 << 20];
	int file = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);

	if (file < 0)
		return 1;
	memset(block, 0x5a, sizeof(block));
	while (mib-- > 0)
		if (write(file, block, sizeof(block)) != sizeof(block))
			return 1;
	close(file);
	return unlink(path);
}

int main(int argc, char **argv)
{
	long long start_ns = now_ns();
	int failed = 0;

	if (argc > 1 && !strcmp(argv[1], "nothing"))
		return 0;
	if (argc > 1 && !strcmp(argv[1], "clock"))
		start_ns = 0;
	else if (argc > 2 && !strcmp(argv[1], "forkexec"))
		failed = fork_exec(atoi(argv[2]));
	else if (argc > 3 && !strcmp(argv[1], "write"))
		failed = write_file(atoi(argv[2]), argv[3]);
	else
		return 2;
	if (failed)
		return 1;
	printf("%lld\n", now_ns() - start_ns);
	return 0;
}
