/*
 * Stands in for NVIDIA's driver of this name: its device nodes, its references, its place below the
 * other three; on QEMU's edu device. What it proves is order, errors and deadlines, and nothing of
 * a real GPU.
 */
#define pr_fmt(text) KBUILD_MODNAME " stand-in: " text
#include "standin.h"
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pci.h>

/* The real one's, fixed (Documentation/admin-guide/devices.txt). */
#define MAJOR_NUMBER 195
#define GPUS 248
#define CONTROL 255

static uint exit_ms;
module_param(exit_ms, uint, 0444);
MODULE_PARM_DESC(exit_ms, "the module's exit takes so long");
static uint probe_ms;
module_param(probe_ms, uint, 0444);
MODULE_PARM_DESC(probe_ms, "the device's probe takes so long, and so the module's init");
static uint remove_ms;
module_param(remove_ms, uint, 0444);
MODULE_PARM_DESC(remove_ms, "the remove of each device takes so long");
static uint step_ms;
module_param(step_ms, uint, 0444);
MODULE_PARM_DESC(step_ms, "each of four steps of a device's remove takes so long");
static bool hang_exit;
module_param(hang_exit, bool, 0444);
MODULE_PARM_DESC(hang_exit, "the module's exit never ends; no lock of a device is held");
static bool hang_probe;
module_param(hang_probe, bool, 0444);
MODULE_PARM_DESC(hang_probe, "the device's probe never ends, and so the module's init");
static bool hang_remove;
module_param(hang_remove, bool, 0444);
MODULE_PARM_DESC(hang_remove, "the device's remove never ends: its lock is held");
static bool spin_remove;
module_param(spin_remove, bool, 0444);
MODULE_PARM_DESC(spin_remove, "the same, and it runs instead of sleeping");
static bool circle_remove;
module_param(circle_remove, bool, 0444);
MODULE_PARM_DESC(circle_remove, "the same, and it asks hardware that is gone, at two places, again and again");
static bool oops_remove;
module_param(oops_remove, bool, 0444);
MODULE_PARM_DESC(oops_remove, "the device's remove dies, and leaves its lock behind");
static bool hang_shutdown;
module_param(hang_shutdown, bool, 0444);
MODULE_PARM_DESC(hang_shutdown, "the device's shutdown never ends");

static struct page *page;
static int *volatile nowhere;

void nvidia_standin_used(void)
{
}
EXPORT_SYMBOL(nvidia_standin_used);

static ssize_t wait_for_the_gpu(struct file *file, char __user *to, size_t length, loff_t *offset)
{
	hang("read");
	return 0;
}

static int map(struct file *file, struct vm_area_struct *vma)
{
	return vm_insert_page(vma, vma->vm_start, page);
}

static const struct file_operations files = {
	.owner = THIS_MODULE,
	.read = wait_for_the_gpu,
	.mmap = map,
};

static int probe(struct pci_dev *device, const struct pci_device_id *id)
{
	int error = pci_enable_device(device);

	if (error)
		return error;
	pci_set_master(device);
	if (hang_probe)
		hang("probe");
	msleep(probe_ms);
	return 0;
}

/* Each has a place of its own on the stack. */
#define STEP(name) \
	static noinline void name(void) \
	{ \
		msleep(step_ms); \
		barrier(); \
	}
STEP(stop_its_firmware)
STEP(wait_for_its_firmware)
STEP(give_back_its_memory)
STEP(take_its_power)

static void remove(struct pci_dev *device)
{
	if (hang_remove)
		hang("remove");
	while (spin_remove)
		cond_resched();
	while (circle_remove) {
		msleep(700);
		msleep(600);
	}
	if (oops_remove)
		*nowhere = 0;
	msleep(remove_ms);
	if (step_ms) {
		stop_its_firmware();
		wait_for_its_firmware();
		give_back_its_memory();
		take_its_power();
	}
	pci_clear_master(device);
	pci_disable_device(device);
	pr_info("%s removed\n", pci_name(device));
}

static void shutdown(struct pci_dev *device)
{
	if (hang_shutdown)
		hang("shutdown");
	pci_clear_master(device);
	pr_info("%s shut down\n", pci_name(device));
}

static const struct pci_device_id ids[] = { { PCI_DEVICE(0x1234, 0x11e8) }, {} };

static struct pci_driver driver = {
	.name = "nvidia",
	.id_table = ids,
	.probe = probe,
	.remove = remove,
	.shutdown = shutdown,
};

static void nodes_away(void)
{
	__unregister_chrdev(MAJOR_NUMBER, CONTROL, 1, "nvidiactl");
	__unregister_chrdev(MAJOR_NUMBER, 0, GPUS, "nvidia");
	__free_page(page);
}

static int __init begin(void)
{
	int error = -ENOMEM;

	page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!page)
		return error;
	error = __register_chrdev(MAJOR_NUMBER, 0, GPUS, "nvidia", &files);
	if (error)
		goto free;
	error = __register_chrdev(MAJOR_NUMBER, CONTROL, 1, "nvidiactl", &files);
	if (error)
		goto unregister;
	error = pci_register_driver(&driver);
	if (!error)
		return 0;
	nodes_away();
	return error;
unregister:
	__unregister_chrdev(MAJOR_NUMBER, 0, GPUS, "nvidia");
free:
	__free_page(page);
	return error;
}

static void __exit end(void)
{
	if (hang_exit)
		hang("exit");
	msleep(exit_ms);
	pci_unregister_driver(&driver);
	nodes_away();
}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("stand-in for nvidia");
