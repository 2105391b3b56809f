/* What the CPU reads behind the stub's back: segments, interrupt gates, the TSS with its I/O bitmap, and the
 * page tables. All of it is constant and assembled in place; nothing is computed at boot. */

.section .stub.data, "aw", @progbits
stub_data:

/* Accessed bits are set here so that loading a selector writes nothing. */
.balign 8
gdt:
  .quad 0
  .quad 0x00af9b000000ffff       /* 0x08: CPL0 code, 64-bit */
  .quad 0x00cf93000000ffff       /* 0x10: CPL0 data */
  .quad 0
  .quad 0x00cff3000000ffff       /* 0x20: CPL3 data */
  .quad 0x00affb000000ffff       /* 0x28: CPL3 code, 64-bit */
  .word tss_end - tss - 1        /* 0x30: TSS, 64-bit, 16 bytes */
  .word (tss - stub_data) + (STUB_DATA & 0xffff)
  .byte STUB_DATA >> 16, 0x89, 0, 0
  .quad 0
gdt_end:

/* Interrupt gates (0x8e): IF is off in every handler. */
.macro GATE handler
  .word \handler - stub_text + (STUB_TEXT & 0xffff)
  .word SEL_CODE0
  .byte 0, 0x8e
  .word STUB_TEXT >> 16
  .quad 0
.endm
.macro EXCEPTION_GATE n
  GATE exception_\n
.endm
.macro EXCEPTION_GATE_N n
  EXCEPTION_GATE %n
.endm
.balign 8
idt:
.set vector, 0
.rept 32
  .if vector == 13
  GATE general_protection
  .else
  EXCEPTION_GATE_N vector
  .endif
  .set vector, vector + 1
.endr
  GATE irq_tick
.rept 15
  GATE irq_device
.endr
idt_end:

gdt_pointer:
  .word gdt_end - gdt - 1
  .quad gdt
idt_pointer:
  .word idt_end - idt - 1
  .quad idt

/* 64-bit TSS: RSP0 and the I/O permission bitmap (a set bit denies). Ports beyond the limit are denied:
 * the clock ports 0xe8 and 0xec stay CPL0's. */
.balign 8
tss:
  .long 0
  .quad cpl0_stack_top
  .fill 90, 1, 0
  .word io_bitmap - tss
io_bitmap:
/* Opens the ports of the byte at `port` whose bits in `mask` are clear; all ports in between stay denied. */
.macro PORTS port, mask
  .org io_bitmap + (\port) / 8, 0xff
  .byte \mask
.endm
  PORTS 0x20, 0xfd               /* 0x21: PIC mask */
  PORTS 0x40, 0xf6               /* 0x40, 0x43: PIT */
  PORTS 0x60, 0xef               /* 0x64: i8042 command */
  PORTS 0x70, 0xfc               /* 0x70, 0x71: RTC */
  PORTS 0xa0, 0xfd               /* 0xa1: PIC mask */
  PORTS 0x3f8, 0x00              /* 0x3f8-0x3ff: UART */
  PORTS 0xcf8, 0x00              /* 0xcf8-0xcff: PCI configuration */
  .byte 0xff                     /* the CPU reads two bytes: the one after the last denies too */
tss_end:

.balign 4096
  .skip 4096
cpl0_stack_top:

/* Page tables. Accessed and dirty are set in every entry, so the CPU never writes to a table: a write it
 * makes on one host and not on the other would look like a divergence. */
.set PRESENT, 0x001
.set WRITE,   0x002
.set USER,    0x004
.set UNCACHED,0x018              /* PWT | PCD */
.set ACCESSED,0x020
.set DIRTY,   0x040
.set LARGE,   0x080
.set NX,      0x8000000000000000
.set TABLE,   PRESENT | WRITE | USER | ACCESSED
.set SUPER,   PRESENT | ACCESSED | DIRTY
.set LEAF,    SUPER | USER

/* Maps pages of `size` from `page` up to `end` with the given rights. */
.macro MAP end, size, rights
  .rept (\end - page) / \size
  .quad page + (\rights)
  .set page, page + \size
  .endr
.endm
.macro UNMAPPED end, size
  .fill (\end - page) / \size, 8, 0
  .set page, \end
.endm

pml4:
  .quad pdpt + TABLE
  .fill 511, 8, 0
pdpt:
  .quad pd_low + TABLE
  .quad 0, 0
  .quad pd_mmio + TABLE
  .fill 508, 8, 0

/* 0 to 1 GiB. RAM above the image is the working set of burns; above that it is only read: a boot loader
 * may put the boot parameters there. */
pd_low:
  .quad pt_0 + TABLE
  .quad pt_1 + TABLE
.set page, 0x400000
  MAP 0x800000, 0x200000, (LEAF | LARGE | WRITE | NX)
  MAP 0x40000000, 0x200000, (LEAF | LARGE | NX)

/* 3 to 4 GiB: memory-mapped devices. */
pd_mmio:
.set page, 0xc0000000
  MAP 0x100000000, 0x200000, (LEAF | LARGE | WRITE | UNCACHED | NX)

/* The first 4 MiB in 4 KiB pages; the image map is in link.ld. */
.set page, 0
pt_0:
  UNMAPPED 0x1000, 0x1000
  MAP 0x100000, 0x1000, (LEAF | NX)
  MAP 0x101000, 0x1000, SUPER
  MAP 0x103000, 0x1000, (SUPER | WRITE | NX)
  MAP 0x109000, 0x1000, (SUPER | NX)
  UNMAPPED 0x10f000, 0x1000
  MAP 0x110000, 0x1000, (LEAF | WRITE | NX)
  MAP 0x190000, 0x1000, LEAF
  MAP 0x1c0000, 0x1000, (LEAF | NX)
  UNMAPPED 0x1c1000, 0x1000
  MAP 0x200000, 0x1000, (LEAF | WRITE | NX)
pt_1:
  MAP 0x400000, 0x1000, (LEAF | WRITE | NX)
