/* standalone.c: a main() for a fuzz target where there is no libFuzzer: runs it once over each file that is named, and over
 * each file in each directory that is named.
 *
 * The rule it keeps: the target gets a heap block of just the file's size, so that the address sanitizer sees a read behind it.
 * The name of the file that was running goes to stderr with every failure.
 */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __asan_on_error(void); /* the sanitizer calls it before it prints */

static const char *running = "nothing";

void __asan_on_error(void) { fprintf(stderr, "while running %s\n", running); }

static void on_abort(int sig) {
    __asan_on_error();
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

static void fail(const char *path) {
    perror(path);
    exit(2);
}

static long run_file(const char *path, size_t size) {
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(size);
    if (!f || (size && !data) || fread(data, 1, size, f) != size) fail(path);
    (void)fclose(f);
    running = path;
    (void)LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 1;
}

/* Runs a file, or the files of a directory (not of those below it); how many they were. */
static long run(const char *path) {
    struct stat about;
    if (stat(path, &about)) fail(path);
    if (!S_ISDIR(about.st_mode)) return run_file(path, (size_t)about.st_size);
    DIR *dir = opendir(path);
    if (!dir) fail(path);
    long count = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        char name[PATH_MAX];
        if (snprintf(name, sizeof name, "%s/%s", path, entry->d_name) >= (int)sizeof name || stat(name, &about)) fail(name);
        if (S_ISREG(about.st_mode)) count += run_file(name, (size_t)about.st_size);
    }
    (void)closedir(dir);
    return count;
}

int main(int argc, char **argv) {
    long count = 0;
    (void)signal(SIGABRT, on_abort);
    for (int i = 1; i < argc; i++) count += run(argv[i]);
    printf("%ld inputs\n", count);
    return count ? 0 : 2; /* nothing run is nothing proved */
}
