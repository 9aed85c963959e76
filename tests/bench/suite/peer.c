/* peer.c - other programs: children with their input and output at hand, and the one that is PyTorch.
 *
 * The peer is a Python process that stays (peer.py), so that what it loads and warms up is outside of what is measured.
 * It takes a line, does it, and answers with a line: "ok" and words, or "no" and why. Times are its own: of its clock
 * and of its processor time around the work alone. */
#include "suite.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

/* execvp() changes nothing of what it is given; its type is older than const. */
static void run(const char *const argv[])
{
    union { const char *const *given; char *const *taken; } u = { .given = argv };
    execvp(argv[0], u.taken);
}

bool child_start(child *c, const char *const argv[])
{
    int to[2] = { -1, -1 }, from[2] = { -1, -1 };

    fflush(NULL);
    if (pipe(to) != 0) return false;
    if (pipe(from) != 0) return close(to[0]), close(to[1]), false;
    fcntl(to[1], F_SETFD, FD_CLOEXEC);
    fcntl(from[0], F_SETFD, FD_CLOEXEC);
    c->pid = fork();
    if (c->pid == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[0]);
        close(from[1]);
        run(argv);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    if (c->pid < 0) return close(to[1]), close(from[0]), false;
    c->to = fdopen(to[1], "w");
    c->from = fdopen(from[0], "r");
    return c->to != NULL && c->from != NULL;
}

bool child_end(child *c)
{
    int status = 1;

    if (c->to != NULL) fclose(c->to);
    if (c->from != NULL) fclose(c->from);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

struct peer { child process; };

static bool ask(peer *p, char *answer, size_t cap, const char *format, va_list args)
{
    char line[1024] = "no";

    if (p == NULL) return false;
    vfprintf(p->process.to, format, args);
    fputc('\n', p->process.to);
    if (fflush(p->process.to) != 0 || fgets(line, sizeof line, p->process.from) == NULL) return false;
    line[strcspn(line, "\n")] = '\0';
    bool ok = strncmp(line, "ok", 2) == 0;
    const char *rest = line + (line[0] != '\0' && line[1] != '\0' ? 2 : 0);
    snprintf(answer, cap, "%s", *rest == '\t' ? rest + 1 : rest);
    if (!ok) note("the peer could not: %s", answer);
    return ok;
}

bool peer_ask(peer *p, char *answer, size_t cap, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bool ok = ask(p, answer, cap, format, args);
    va_end(args);
    return ok;
}

bool peer_time(peer *p, span *s, const char *format, ...)
{
    char    answer[256];
    va_list args;
    va_start(args, format);
    bool ok = ask(p, answer, sizeof answer, format, args);
    va_end(args);
    return ok && sscanf(answer, "%lf %lf", &s->clock, &s->busy) == 2;
}

peer *peer_start(const char *python, const char *script)
{
    const char *const argv[] = { python, script, NULL };
    peer *p = calloc(1, sizeof *p);

    if (p == NULL) return NULL;
    signal(SIGPIPE, SIG_IGN); /* a peer that died is one that could not */
    if (child_start(&p->process, argv)) return p;
    free(p);
    return NULL;
}

void peer_stop(peer *p)
{
    if (p == NULL) return;
    child_end(&p->process); /* the end of its input ends it */
    free(p);
}

static void put_floats(FILE *f, const float *v, size_t n)
{
    if (fwrite(v, sizeof *v, n, f) != n) die("cannot write the peer's inputs");
}

/* Latents, then of each stream the conditional half and the unconditional one. */
void peer_inputs(const suite *b, const side *s, char *words, size_t cap)
{
    char  path[1024];
    FILE *f;

    snprintf(path, sizeof path, "%s/inputs.f32", b->dir);
    f = fopen(path, "wb");
    if (f == NULL) die("cannot write %s", path);
    put_floats(f, s->latent, s->info.latent_len);
    for (int32_t i = 0; i < s->about.text_streams; i++)
        for (int half = 0; half < 2; half++) put_floats(f, s->text[half][i].data, s->text[half][i].len);
    if (fclose(f) != 0) die("cannot write %s", path);
    size_t tokens = (size_t)s->text[0][0].tokens, pooled = s->about.text_streams > 1 ? s->text[0][1].len : 0;
    snprintf(words, cap, "%d\t%d\t%d\t%d\t%zu\t%zu\t%zu\t%s", (int)s->about.latent_channels, (int)s->info.height,
             (int)s->info.width, (int)s->about.image_factor, tokens, s->text[0][0].len / tokens, pooled, path);
}

float *peer_result(const char *path, size_t n)
{
    FILE  *f = fopen(path, "rb");
    float *v = malloc(n * sizeof *v);
    bool   whole = f != NULL && v != NULL && fread(v, sizeof *v, n, f) == n;

    if (f != NULL) fclose(f);
    if (whole) return v;
    free(v);
    return NULL;
}
