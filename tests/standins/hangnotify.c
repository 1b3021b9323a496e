/* A reboot notifier that never returns: every reboot(2) waits for it. */
#include "standin.h"
#include <linux/reboot.h>

static int called(struct notifier_block *block, unsigned long action, void *data)
{
	hang("reboot notifier");
	return NOTIFY_DONE;
}

static struct notifier_block block = { .notifier_call = called };

static int __init begin(void)
{
	return register_reboot_notifier(&block);
}

module_init(begin);
MODULE_DESCRIPTION("a reboot notifier that hangs");
