/* A reboot notifier that never returns, or late: every reboot(2) waits for it. */
#include "standin.h"
#include <linux/delay.h>
#include <linux/reboot.h>

static uint pause_ms;
module_param(pause_ms, uint, 0444);
MODULE_PARM_DESC(pause_ms, "it returns after so long, and says so");

static int called(struct notifier_block *block, unsigned long action, void *data)
{
	if (!pause_ms)
		hang("reboot notifier");
	msleep(pause_ms);
	pr_info("reboot notifier returns\n");
	return NOTIFY_DONE;
}

static struct notifier_block block = { .notifier_call = called };

static int __init begin(void)
{
	return register_reboot_notifier(&block);
}

module_init(begin);
MODULE_DESCRIPTION("a reboot notifier that hangs");
