/*
 * A disk that takes every request and answers none: sync(2) waits for it for ever. Once it is told to,
 * it answers slowly.
 */
#include "standin.h"
#include <linux/blkdev.h>
#include <linux/sizes.h>
#include <linux/version.h>
#include <linux/workqueue.h>

static struct bio_list taken;
static DEFINE_SPINLOCK(lock);

static uint answer_ms;

static void answer(struct work_struct *work);
static DECLARE_DELAYED_WORK(answering, answer);

static void answer(struct work_struct *work)
{
	struct bio *bio;

	spin_lock(&lock);
	bio = bio_list_pop(&taken);
	spin_unlock(&lock);
	if (bio)
		bio_endio(bio);
	if (answer_ms)
		schedule_delayed_work(&answering, msecs_to_jiffies(answer_ms));
}

static int set_answer(const char *value, const struct kernel_param *parameter)
{
	int error = param_set_uint(value, parameter);

	if (!error)
		schedule_delayed_work(&answering, 0);
	return error;
}

static const struct kernel_param_ops answer_operations = {
	.set = set_answer,
	.get = param_get_uint,
};
module_param_cb(answer_ms, &answer_operations, &answer_ms, 0644);
MODULE_PARM_DESC(answer_ms, "from when this is set, it answers one request each time that so long has passed");

static void take(struct bio *bio)
{
	spin_lock(&lock);
	bio_list_add(&taken, bio);
	spin_unlock(&lock);
}

static const struct block_device_operations operations = {
	.owner = THIS_MODULE,
	.submit_bio = take,
};

static int __init begin(void)
{
	int error, major = register_blkdev(0, "hangblk");
	struct gendisk *disk;

	if (major < 0)
		return major;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
	disk = blk_alloc_disk(NUMA_NO_NODE) ?: ERR_PTR(-ENOMEM);
#else
	disk = blk_alloc_disk(NULL, NUMA_NO_NODE);
#endif
	if (IS_ERR(disk)) {
		error = PTR_ERR(disk);
		goto unregister;
	}
	strscpy(disk->disk_name, "hangblk", DISK_NAME_LEN);
	disk->major = major;
	disk->minors = 1;
	disk->fops = &operations;
	/* Looking for partitions would read, and wait. */
	disk->flags |= GENHD_FL_NO_PART;
	set_capacity(disk, SZ_16M >> SECTOR_SHIFT);
	error = add_disk(disk);
	if (!error)
		return 0;
	put_disk(disk);
unregister:
	unregister_blkdev(major, "hangblk");
	return error;
}

module_init(begin);
MODULE_DESCRIPTION("a disk that never answers");
