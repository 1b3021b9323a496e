/* Stands in for NVIDIA's module of this name: above nvidia, below nvidia_drm. */
#include "standin.h"
#include <linux/fs.h>

#define MAJOR_NUMBER 195
#define MINOR_NUMBER 254

void nvidia_modeset_standin_used(void)
{
}
EXPORT_SYMBOL(nvidia_modeset_standin_used);

static const struct file_operations files = { .owner = THIS_MODULE };

static int __init begin(void)
{
	nvidia_standin_used();
	return __register_chrdev(MAJOR_NUMBER, MINOR_NUMBER, 1, "nvidia-modeset", &files);
}

static void __exit end(void)
{
	__unregister_chrdev(MAJOR_NUMBER, MINOR_NUMBER, 1, "nvidia-modeset");
}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("stand-in for nvidia_modeset");
