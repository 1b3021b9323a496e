/* Takes the lock of all consoles, as a printk does that hangs in the driver of a dead screen. */
#include "standin.h"
#include <linux/console.h>

static int __init begin(void)
{
	pr_info("holdconsole: not a word more\n");
	console_lock();
	return 0;
}

module_init(begin);
MODULE_DESCRIPTION("holds the consoles' lock for ever");
