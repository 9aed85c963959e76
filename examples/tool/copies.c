/* copies.c - which files are mapped, and which are copied into memory.
 *
 * A mapped file costs nothing until it is read, and several programs share it. But where it is cut
 * short while it is in use, or its disk is unplugged or its server gone, the system ends the
 * program without a word. So files on network and removable file systems are copied, unless --map
 * says otherwise; --copy copies the others too. */
#include <stdio.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif

#include "tool.h"

/* Types as statfs() tells them on Linux. */
int may_vanish(uint32_t type)
{
    static const uint32_t types[] = {
        0x6969,                             /* NFS                     */
        0x517b, 0xfe534d42, 0xff534d42,     /* SMB, SMB2, CIFS         */
        0x65735546,                         /* FUSE: sshfs, rclone ... */
        0x01021997, 0x5346414f, 0x6b414653, /* 9P, AFS, kAFS           */
        0x73757245, 0x00c36400, 0x564c,     /* Coda, Ceph, NCP         */
        0x0bd00bd0, 0x47504653, 0x19830326, /* Lustre, GPFS, BeeGFS    */
        0x7461636f, 0x01161970,             /* OCFS2, GFS2             */
        0x786f4256, 0xbacbacbc,             /* shared folders of VirtualBox and VMware */
        0x4d44, 0x2011bab0,                 /* FAT, exFAT              */
        0x9660, 0x15013346,                 /* CDs and DVDs            */
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i] == type) return 1;
    return 0;
}

uint32_t how_to_open(const settings *s, const char *path)
{
    if (s->flags & COPY) return WEFT_OPEN_COPY;
#ifdef __linux__
    struct statfs about;
    if (!(s->flags & MAP) && path != NULL && statfs(path, &about) == 0 &&
        may_vanish((uint32_t)about.f_type))
        return WEFT_OPEN_COPY;
#endif
    (void)path;
    return 0;
}
