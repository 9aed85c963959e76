/* foreign.c - what a file is that is not what was asked for.
 *
 * A download often leaves something else under the right name: a pointer of Git LFS, a page to sign
 * in, a server's error. "Not a safetensors file" is true of all of them and helps with none. So
 * when a reader gives up, the first bytes are looked at, and the message says what they are and
 * what to do. Nothing is asked of a file that could be read. */
#include "io/io.h"

#define START(text) 0, text, sizeof text - 1

static const struct foreign {
    size_t      at;
    const char *bytes;
    size_t      length;
    const char *is;
} foreign[] = {
    { START("version https://git-lfs"),
      "a Git LFS pointer, not the file that it stands for: fetch that with 'git lfs "
      "pull', or download it" },
    { START("\xff\xd8\xff"), "a JPEG image" },
    { START("\x89PNG\r\n\x1a\n"), "a PNG image" },
    { START("GIF8"), "a GIF image" },
    { 8, "WEBP", 4, "a WebP image" },
    { 4, "ftypavif", 8, "an AVIF image" },
    { START("GGUF"),
      "a GGUF file, whose quantised weights this version does not read: get the model as "
      "safetensors" },
    { START("\x89HDF\r\n"), "an HDF5 file (Keras): get the model as safetensors" },
    { START("PK\5\6"), "an empty zip archive" },
    { START("Rar!"), "a RAR archive: unpack it first" },
    { START("7z\xbc\xaf\x27\x1c"), "a 7z archive: unpack it first" },
    { START("\x1f\x8b"), "compressed with gzip: unpack it first" },
    { START("\xfd\x37zXZ"), "compressed with xz: unpack it first" },
    { START("\x28\xb5\x2f\xfd"), "compressed with zstd: unpack it first" },
    { START("%PDF"), "a PDF document" },
};

static bool is_space(uint8_t c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static bool begins(const uint8_t *data, size_t size, const char *word)
{
    size_t n = strlen(word);

    if (size < n) return false;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = data[i] >= 'A' && data[i] <= 'Z' ? (uint8_t)(data[i] + ('a' - 'A')) : data[i];
        if (c != (uint8_t)word[i]) return false;
    }
    return true;
}

/* What a text begins with, its white space as single spaces; empty if the file is no text. */
static void first_words(char *buf, size_t cap, const uint8_t *data, size_t size)
{
    size_t n = 0, i = 0;

    for (; i < size && n + 1 < cap; i++) {
        bool space = is_space(data[i]);
        if (!space && (data[i] < ' ' || data[i] >= 0x7f)) break;
        if (!space || (n > 0 && buf[n - 1] != ' ')) buf[n++] = space ? ' ' : (char)data[i];
    }
    if (i < 8 || (i < size && n + 1 < cap)) n = 0;
    if (n > 0 && buf[n - 1] == ' ') n--;
    buf[n] = '\0';
}

static const char *name_of(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < WF_LEN(foreign); i++) {
        const struct foreign *f = &foreign[i];
        if (size >= f->at + f->length && memcmp(data + f->at, f->bytes, f->length) == 0)
            return f->is;
    }
    if (size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) data += 3, size -= 3;
    while (size > 0 && is_space(*data)) data++, size--;
    if (begins(data, size, "<!doctype") || begins(data, size, "<html"))
        return "a web page, perhaps one to sign in: download the file itself";
    return NULL;
}

weft_status wf_say_foreign(weft_status st, const uint8_t *data, size_t size, const char *wanted,
                           const char *what, weft_error *err)
{
    char        words[61];
    const char *is;

    if (st != WEFT_E_FORMAT && st != WEFT_E_UNSUPPORTED) return st;
    if ((is = name_of(data, size)) != NULL)
        return wf_fail(err, st, "%s: not %s: it is %s", what, wanted, is);
    first_words(words, sizeof words, data, size);
    if (words[0] == '\0') return st;
    return wf_fail(err, st, "%s: not %s: it is text that begins \"%s\"; perhaps an error in place "
                            "of a download",
                   what, wanted, words);
}
