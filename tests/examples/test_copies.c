/* Which file systems the tool copies from: by the numbers of the system's own header, where it has
 * them. What --copy does to a process's mappings is in tool.sh. */
#include "../../examples/tool/copies.c"

#include <check.h>
#ifdef __linux__
#include <linux/magic.h>
#endif

START_TEST(network_and_removable_file_systems_may_vanish)
{
#ifdef __linux__
    static const uint32_t remote[] = {
        NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, V9FS_MAGIC, AFS_SUPER_MAGIC, CODA_SUPER_MAGIC, NCP_SUPER_MAGIC,
        OCFS2_SUPER_MAGIC, MSDOS_SUPER_MAGIC, ISOFS_SUPER_MAGIC, UDF_SUPER_MAGIC,
#ifdef FUSE_SUPER_MAGIC /* these are younger */
        FUSE_SUPER_MAGIC, CEPH_SUPER_MAGIC, CIFS_SUPER_MAGIC, SMB2_SUPER_MAGIC, EXFAT_SUPER_MAGIC, AFS_FS_MAGIC,
#endif
    };
    static const uint32_t local[] = { EXT4_SUPER_MAGIC, BTRFS_SUPER_MAGIC, XFS_SUPER_MAGIC, TMPFS_MAGIC,
                                      OVERLAYFS_SUPER_MAGIC, SQUASHFS_MAGIC, F2FS_SUPER_MAGIC, RAMFS_MAGIC };

    for (size_t i = 0; i < sizeof remote / sizeof *remote; i++) ck_assert_msg(may_vanish(remote[i]), "%x", remote[i]);
    for (size_t i = 0; i < sizeof local / sizeof *local; i++) ck_assert_msg(!may_vanish(local[i]), "%x", local[i]);
#endif
}
END_TEST

START_TEST(who_says_how_is_asked_first)
{
    settings s = { .flags = COPY };

    ck_assert_uint_eq(how_to_open(&s, "."), WEFT_OPEN_COPY);
    s.flags = MAP;
    ck_assert_uint_eq(how_to_open(&s, "."), 0);
    s.flags = 0;
    ck_assert_uint_eq(how_to_open(&s, "/dev/null/nowhere"), 0); /* whoever opens it will say */
    ck_assert_uint_eq(how_to_open(&s, NULL), 0);
    ck_assert_uint_eq(how_to_open(&s, "/proc/self/status"), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("copies");
    TCase *c = tcase_create("all");
    tcase_add_test(c, network_and_removable_file_systems_may_vanish);
    tcase_add_test(c, who_says_how_is_asked_first);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
