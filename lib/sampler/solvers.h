/* solvers.h - the list of solvers. To add one, write its file, and its name here.
 *
 * The file lib/sampler/NAME.c defines wf_solver_NAME, the row that says everything else about it:
 * its public kind, aliases, needs, settings, and its step (see wf_solver in sampler_internal.h).
 * weft_has(), the tool's --sampler and the tests go through this list. */
#ifndef WF_SOLVERS_H
#define WF_SOLVERS_H

#define WF_SOLVERS(row) \
    row(ddim)           \
    row(euler)          \
    row(euler_a)        \
    row(dpmpp_2m)       \
    row(pndm)           \
    row(ddpm)           \
    row(heun)           \
    row(lcm)            \
    row(tcd)

#endif
