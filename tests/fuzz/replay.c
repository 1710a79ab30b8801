/* SPDX-License-Identifier: MPL-2.0 */
/* The main of a fuzz target in builds without libFuzzer: runs it over each file of the folders
 * named. */
#define _GNU_SOURCE

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define INPUT_SIZE_MAX 1048576
#define PATH_SIZE_MAX  4096

/* The name is libFuzzer's. NOLINTNEXTLINE(readability-identifier-naming) */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    uint8_t *input = malloc(INPUT_SIZE_MAX);
    const size_t size = input == NULL ? 0 : fread(input, 1, INPUT_SIZE_MAX, file);
    (void)fclose(file);
    int result = 1;
    if (size > 0) {
        uint8_t *exact = realloc(input, size); /* so that ASan sees a read past its end */
        input = exact == NULL ? input : exact;
        result = LLVMFuzzerTestOneInput(input, size);
    }
    free(input);
    return result;
}

/* How many files were replayed, -1 on an error. */
static int replay_folder(const char *folder)
{
    struct dirent **entries = NULL;
    const int entry_count = scandir(folder, &entries, NULL, alphasort);
    if (entry_count == -1) {
        perror(folder);
        return -1;
    }
    int file_count = 0;
    for (int i = 0; i < entry_count; i++) {
        char path[PATH_SIZE_MAX];
        (void)snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && file_count != -1) {
            file_count = replay(path) == 0 ? file_count + 1 : -1;
        }
        free(entries[i]);
    }
    free(entries);
    return file_count;
}

int main(int argc, char **argv)
{
    int total = 0;
    for (int i = 1; i < argc; i++) {
        const int file_count = replay_folder(argv[i]);
        if (file_count == -1) {
            return 1;
        }
        total += file_count;
    }
    (void)printf("replay: %d files\n", total);
    return total > 0 ? 0 : 1;
}
