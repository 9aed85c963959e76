/* main.c - the command-line tool: picks the subcommand, and prints help. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tool.h"

static const struct {
    const char *name, *usage, *help;
    int         used_by;
    int       (*run)(settings *s);
} subcommands[] = {
    { "generate", "weft generate MODEL --prompt TEXT [--adapter FILE[:WEIGHT]]... [OPTIONS]",
      "Draw an image. MODEL is a folder in the diffusers layout, or a single checkpoint file.\n\n"
      "  weft generate sd15/ -p 'a lighthouse at dusk' -o plain.png\n"
      "  weft generate sd15/ -p 'a sbu cat in szn style' -o cat.png --compose klora \\\n"
      "      -a cat.safetensors --role content -a ink.safetensors --role style", GENERATE, generate },
    { "explain", "weft explain MODEL [--adapter FILE[:WEIGHT]]... [OPTIONS] [-o TABLE.png]",
      "Show what a plan will do, without drawing: which adapter acts in which layer at which\n"
      "call, how many times the network is evaluated, and the memory it takes. The options are\n"
      "those of generate that shape a plan.\n\n"
      "  weft explain sd15/ --compose klora -a cat.safetensors -a ink.safetensors -o table.png", EXPLAIN, explain },
    { "inspect", "weft inspect FILE [OPTIONS]",
      "Say what a file or folder holds (a model, an adapter, words, or just tensors), and what to do with it.\n\n"
      "  weft inspect ink.safetensors --model sd15/", INSPECT, inspect },
    { "convert", "weft convert ADAPTER --model MODEL -o FILE [OPTIONS]",
      "Write an adapter in the dialect of other tools. Only its names change.\n\n"
      "  weft convert ink.safetensors --model sd15/ --dialect diffusers -o ink_diffusers.safetensors", CONVERT, convert },
    { "merge", "weft merge MODEL --adapter FILE[:WEIGHT]... [--into adapter [OPTIONS]] -o PATH",
      "Write the model with adapters merged into its weights, in the layout and the dtypes that it has;\n"
      "or one new adapter that does what several do.\n\n"
      "  weft merge sd15.safetensors -a ink.safetensors:0.8 -o sd15_ink.safetensors\n"
      "  weft merge sd15/ -a cat.safetensors -a ink.safetensors:0.7 -a clay.safetensors:0.4 \\\n"
      "      --into adapter --rank 32 -o three.safetensors\n"
      "  weft merge sd15/ -a cat.safetensors -a ink.safetensors --compose zip --into adapter -o cat_ink.safetensors", MERGE_MODEL, merge_model },
    { "conflicts", "weft conflicts MODEL --adapter FILE[:WEIGHT] --adapter FILE[:WEIGHT]... [OPTIONS] [-o PICTURE.png]",
      "Say how adapters get in each other's way, without drawing: for each block of the network who\n"
      "is larger, whether they do the same or the opposite, and what to do about it.\n\n"
      "  weft conflicts sd15/ -a cat.safetensors --role content -a ink.safetensors --role style", CONFLICTS, conflicts },
    { "fuse", "weft fuse MODEL --concept FILE[:WEIGHT]... [OPTIONS] -o FILE",
      "Write one adapter in which several concepts live beside each other: least squares on what the\n"
      "layers read where each concept is meant. Every --concept or --adapter is one.\n\n"
      "  weft fuse sd15/ -c cat.pth -c dog.pth -o both.safetensors\n"
      "  weft fuse sd15/ -c cat.bin --called '<new1> cat' -c dog.bin --tokens '<new2>' --called '<new2> dog' \\\n"
      "      --by constrained --captions captions.txt -o both.safetensors\n"
      "  weft generate sd15/ -p '<new1> cat and <new2> dog' -c cat.bin:0 -c dog.bin:0 --tokens '<new2>' -a both.safetensors", FUSE, fuse },
    { "train", "weft train RECIPE --model MODEL --data FOLDER [OPTIONS] -o PATH",
      "Learn from pictures: an adapter, the vectors of a word, or the whole denoiser. FOLDER holds PNG and\n"
      "JPEG files, each with its caption in a .txt beside it, or --prompt speaks of all of them. Ctrl-C leaves\n"
      "a checkpoint, and --resume goes on from it with the bits that there would have been.\n\n"
      "  weft train lora -m sd15/ -d cat/ -p 'a sbu cat' --steps 800 -o cat.safetensors\n"
      "  weft train dreambooth-lora -m sd15/ -d cat/ -p 'a sbu cat' --class-prompt 'a cat' --class-count 100 \\\n"
      "      --text --sample-every 100 --sample-prompt 'a sbu cat on a beach' -o cat.safetensors\n"
      "  weft train textual-inversion -m sd15/ -d cup/ --tokens '<cup>' --initial cup -o cup.safetensors\n"
      "  weft train ziplora -m sdxl/ --content cat.safetensors --style ink.safetensors -d cat/ -p 'a sbu cat' \\\n"
      "      --style-data ink/ --style-prompt 'szn style' -o cat_ink.safetensors", TRAIN, train },
};
enum { SUBCOMMANDS = sizeof subcommands / sizeof subcommands[0] };

static void print_help(void)
{
    printf("weft - compose and train LoRA adapters, and draw images with diffusion models\n\n");
    for (int i = 0; i < SUBCOMMANDS; i++) printf("  %s\n", subcommands[i].usage);
    printf("  weft help [SUBCOMMAND | METHOD | TOPIC | all]\n  weft --version\n");
    print_topics();
    printf("\nExit status: 0 done, 1 failed, with one line that says why, 2 the command line is wrong.\n");
}

static void print_subcommand(int i)
{
    printf("usage: %s\n\n%s\n", subcommands[i].usage, subcommands[i].help);
    if (subcommands[i].used_by == TRAIN) {
        printf("\nRecipes:\n");
        print_recipes();
    }
    print_options(subcommands[i].used_by);
}

/* weft help, weft help WORD. */
static void help(const char *word)
{
    if (word == NULL) { print_help(); return; }
    for (int i = 0; i < SUBCOMMANDS; i++)
        if (strcmp(word, subcommands[i].name) == 0) { print_subcommand(i); return; }
    if (!print_topic(word)) misuse("there is no help on '%s'", word);
}

static int finish(int status)
{
    int unsaid = ferror(stdout);                     /* errno is of that time, and long gone */
    if (fflush(stdout) != 0) fail("cannot write the output: %s", strerror(errno));
    if (unsaid) fail("cannot write the output");
    return status;
}

/* OpenBLAS starts a thread for each core when it is loaded, each with 128 MiB of addresses, and one
 * that cannot have them asks for ever: the program would not even end. weft never uses these
 * threads. So where addresses are limited we begin again without them. */
static void want_no_idle_threads(char **argv)
{
    struct rlimit space;

    if (getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur == RLIM_INFINITY) return;
    if (getenv("OPENBLAS_NUM_THREADS") != NULL || setenv("OPENBLAS_NUM_THREADS", "1", 1) != 0) return;
    execv("/proc/self/exe", argv); /* comes back only where there is no such file */
}

int main(int argc, char **argv)
{
    settings s;

    want_no_idle_threads(argv);
    signal(SIGXFSZ, SIG_IGN);                    /* a file that may not grow is an error like a full disk */
    if (argc < 2) misuse("which subcommand: generate, explain, inspect, convert, merge, conflicts, fuse or train?");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        if (argc > 3) misuse("help is about one word, and there is '%s' too", argv[3]);
        help(argv[2]);
        return finish(0);
    }
    if (strcmp(argv[1], "--version") == 0) {
        uint32_t v = weft_version();
        printf("weft %u.%u.%u\n", (unsigned)(v >> 16), (unsigned)(v >> 8 & 255), (unsigned)(v & 255));
        return finish(0);
    }
    for (int i = 0; i < SUBCOMMANDS; i++) {
        if (strcmp(argv[1], subcommands[i].name) != 0) continue;
        subcommand = subcommands[i].name;
        settings_init(&s, argc);
        parse_arguments(&s, subcommands[i].used_by, argc - 1, argv + 1);
        int status = 0;
        if (s.flags & HELP) help(s.target ? s.target : subcommands[i].name); /* weft generate --help klora */
        else status = subcommands[i].run(&s);
        settings_free(&s);
        return finish(status);
    }
    misuse("there is no subcommand '%s'", argv[1]);
}
