/*
 * creation_library.c - the source of all libraries libc10k_000.so ... that `fork_latency --libraries` loads.
 *
 * What an ordinary library has, in its smallest form: code, a constant, initialised data with an address that
 * the loader has to relocate, and data that begins as zero. The relocation writes a page at load time.
 */
static int zero_word;
static int *volatile relocated = &zero_word;

int c10k_library_count(void);

int c10k_library_count(void)
{
    return ++*relocated;
}
