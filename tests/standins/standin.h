/* What the stand-ins share. */
#include <linux/module.h>
#include <linux/sched.h>

/* As a driver does that waits for hardware that is gone: no signal ends it. */
static inline void hang(const char *where)
{
	pr_info("%s hangs\n", where);
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	}
}

/* Using one makes a module a holder of the module that has it. */
void nvidia_standin_used(void);
void nvidia_modeset_standin_used(void);

MODULE_LICENSE("Dual MIT/GPL");
