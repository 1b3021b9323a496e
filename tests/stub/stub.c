// A next kernel that says on COM1 what it was told, and powers the machine off.
// Structures and numbers are those of Documentation/arch/x86/boot.rst and zero-page.rst.
#include <asm/bootparam.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

// Named in bzimage.lds and vmlinux.lds: the beginning and end in memory, and where a vmlinux is mapped, as relocated.
extern char start[], bss_end[];
extern const uint64_t mapped_wide;
extern const int32_t mapped_narrow;

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;
	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;
	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

// A 16550 (its data sheet, 8.0): interrupts enabled, line control, line status.
#define COM1 0x3f8
#define IER (COM1 + 1)
#define LCR (COM1 + 3)
#define LSR (COM1 + 5)
#define EIGHT_BITS 3
#define HOLDING_EMPTY 0x20
#define ALL_SENT 0x40

static void put(char c)
{
	while (!(inb(LSR) & HOLDING_EMPTY))
		;
	outb(COM1, c);
}

static void text(const char *text)
{
	while (*text)
		put(*text++);
}

// Prints a number in a base, with zeros before it up to a width.
static void number(uint64_t value, unsigned base, int width)
{
	char digits[20];
	int count = 0;
	do {
		digits[count++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value || count < width);
	while (count)
		put(digits[--count]);
}

static void decimal(const char *name, uint64_t value)
{
	text(name);
	number(value, 10, 1);
}

static void hexadecimal(const char *name, uint64_t value)
{
	text(name);
	number(value, 16, 1);
}

// Page tables (Intel SDM volume 3, 4.5): every address below 512 GiB that is asked for is mapped to itself, by 2 MiB,
// a GiB at a time, and of these as many as there are.
#define GIBS 16
#define PRESENT 1
#define WRITABLE 2
#define LARGE 0x80
#define CR4_LA57 (1 << 12)
#define PAGE_TABLE __attribute__((aligned(4096)))
static PAGE_TABLE uint64_t level5[512], level4[512], level3[512], level2[GIBS][512];

static void map(const void *from, uint64_t size)
{
	static unsigned used;
	if (!size)
		return;
	uint64_t last = ((uint64_t)from + size - 1) >> 30;
	for (uint64_t gib = (uint64_t)from >> 30; gib <= last && gib < 512 && used < GIBS; gib++) {
		if (level3[gib])
			continue;
		uint64_t *pages = level2[used++];
		for (uint64_t page = 0; page < 512; page++)
			pages[page] = gib << 30 | page << 21 | LARGE | WRITABLE | PRESENT;
		level3[gib] = (uint64_t)pages | WRITABLE | PRESENT;
	}
	__asm__ volatile("" : : : "memory");
}

// Leaves the loader's page tables, which map no more than boot.rst promises, and returns how many levels there are.
static int use_own_page_tables(void)
{
	uint64_t cr4;
	level4[0] = (uint64_t)level3 | WRITABLE | PRESENT;
	level5[0] = (uint64_t)level4 | WRITABLE | PRESENT;
	__asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
	int levels = cr4 & CR4_LA57 ? 5 : 4;
	__asm__ volatile("mov %0, %%cr3" : : "r"(levels == 5 ? level5 : level4) : "memory");
	return levels;
}

// Mixes a word into a sum: FNV-1a, 64 bits at a time, and rotated, so that the highest bits count, too.
static uint64_t mix(uint64_t sum, uint64_t word)
{
	sum = (sum ^ word) * 0x100000001b3;
	return sum << 29 | sum >> 35;
}

// Sums bytes up as tests/bed/kernel/stub.rs does: as words, the last one filled up with zeros, and then their number.
static uint64_t sum_of(const uint8_t *bytes, uint64_t size)
{
	uint64_t sum = 0xcbf29ce484222325, word, at = 0;
	for (; at + 8 <= size; at += 8) {
		__builtin_memcpy(&word, bytes + at, 8);
		sum = mix(sum, word);
	}
	if (at < size) {
		word = 0;
		for (uint64_t byte = at; byte < size; byte++)
			word |= (uint64_t)bytes[byte] << 8 * (byte - at);
		sum = mix(sum, word);
	}
	return mix(sum, size);
}

// Prints the command line, and nothing else in its line.
static void say_up(const struct boot_params *params)
{
	const char *line = (const char *)((uint64_t)params->ext_cmd_line_ptr << 32 | params->hdr.cmd_line_ptr);
	text("\r\nNEXT KERNEL UP: ");
	if (line) {
		map(line, params->hdr.cmdline_size + 1);
		text(line);
	}
	text("\r\n");
}

struct memory {
	uint64_t entries, usable;
};

static void count(struct memory *memory, const struct boot_e820_entry *entries, uint64_t size)
{
	for (uint64_t at = 0; at < size; at++) {
		memory->entries++;
		// AddressRangeMemory (ACPI 6.5, 15).
		if (entries[at].type == 1)
			memory->usable += entries[at].size;
	}
}

// Prints what else it was told, and how it was started.
static void say_got(const struct boot_params *params, int is_vmlinux, int levels)
{
	const uint8_t *initrd = (const uint8_t *)((uint64_t)params->ext_ramdisk_image << 32 | params->hdr.ramdisk_image);
	uint64_t size = (uint64_t)params->ext_ramdisk_size << 32 | params->hdr.ramdisk_size;
	struct memory memory = { 0, 0 };
	uint64_t nodes = 0, seed = 0;
	map(initrd, size);
	count(&memory, params->e820_table, params->e820_entries);
	const struct setup_data *node = (const struct setup_data *)params->hdr.setup_data;
	for (; node; node = (const struct setup_data *)node->next) {
		map(node, sizeof *node);
		map(node, sizeof *node + node->len);
		nodes++;
		if (node->type == SETUP_E820_EXT)
			count(&memory, (const struct boot_e820_entry *)node->data,
			      node->len / sizeof(struct boot_e820_entry));
		else if (node->type == SETUP_RNG_SEED)
			seed = sum_of(node->data, node->len);
	}
	decimal("NEXT KERNEL GOT: initrd ", size);
	text(" bytes sum ");
	number(sum_of(initrd, size), 16, 16);
	decimal(", e820 ", memory.entries);
	decimal(" entries, ", memory.usable >> 10);
	hexadecimal(" KiB usable, rsdp ", params->acpi_rsdp_addr);
	// "EL64", as a number (EFI64_LOADER_SIGNATURE).
	decimal(", efi ", params->efi_info.efi_loader_signature == 0x34364c45);
	hexadecimal(", screen ", params->screen_info.orig_video_isVGA);
	decimal(", setup_data ", nodes);
	hexadecimal(", seed ", seed);
	hexadecimal(", loader ", params->hdr.type_of_loader);
	hexadecimal(", loadflags ", params->hdr.loadflags);
	decimal(", levels ", levels);
	hexadecimal(is_vmlinux ? ", vmlinux at " : ", bzImage at ", (uint64_t)start);
	if (is_vmlinux && mapped_narrow == (int64_t)mapped_wide)
		hexadecimal(" mapped at ", mapped_wide);
	else if (is_vmlinux)
		text(" mapped at odds");
	text("\r\n");
}

static uint32_t pci(uint32_t device, uint32_t function, uint32_t at)
{
	outl(0xcf8, 0x80000000 | device << 11 | function << 8 | at);
	return inl(0xcfc);
}

// Tells where the ports of ACPI's power management are, which the firmware chose: PMBA of a PIIX4 (its data sheet, 7.1)
// or PMBASE of an ICH9 (its data sheet, 13.1), which QEMU's two PCs have.
static uint16_t power_management(void)
{
	if (pci(1, 3, 0) == 0x71138086)
		return pci(1, 3, 0x40) & 0xffc0;
	if (pci(31, 0, 0) == 0x29188086)
		return pci(31, 0, 0x40) & 0xff80;
	return 0x600;
}

// Powers off: SLP_EN in PM1a_CNT, with a SLP_TYP that is 0 in what QEMU's tables say of S5 (ACPI 6.5, 4.8.3.2).
static void power_off(void)
{
	while (!(inb(LSR) & ALL_SENT))
		;
	outw(power_management() + 4, 1 << 13);
}

__attribute__((noreturn)) void stub(const struct boot_params *params, int is_vmlinux)
{
	map(start, bss_end - start);
	map(params, sizeof *params);
	map(0, 1ull << 32);
	int levels = use_own_page_tables();
	outb(IER, 0);
	outb(LCR, EIGHT_BITS);
	say_up(params);
	say_got(params, is_vmlinux, levels);
	power_off();
	for (;;)
		__asm__ volatile("hlt");
}
