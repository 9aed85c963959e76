/* solvers.h - the list of solvers. To add one, write its file, and its name here.
 *
 * A file of lib/sampler defines wf_solver_NAME, the row that says everything else about it: its
 * public kind, aliases, needs, settings, and its step (see wf_solver in sampler_internal.h). It is
 * called NAME.c, but for variants of one method, which share the file of the first.
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
    row(tcd)            \
    row(dpmpp_2m_sde)   \
    row(dpmpp_3m)       \
    row(dpmpp_3m_sde)   \
    row(dpmpp_sde)      \
    row(dpmpp_2s)       \
    row(unipc)          \
    row(lms)            \
    row(dpm2)           \
    row(dpm2_a)         \
    row(deis)

#endif
