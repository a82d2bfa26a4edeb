# What the tests boot: says what is in its second sector, echoes what it is told, and does as it is told.
.code16
.globl _start
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    sti
    movb %dl, drive
    movw $0x0201, %ax
    movw $0x7e00, %bx
    movw $0x0002, %cx
    xorb %dh, %dh
    int $0x13
    movw $0x602, %dx
    movw $0x100, %ax
    outw %ax, %dx
    movw $hello, %si
    call print
    movw $0x7e00, %si
    call print
    movw $end, %si
    call print
again:
    movw $0x600, %dx
    inw %dx, %ax
    testb $1, %ah
    jnz off
    movw $0x3fd, %dx
    inb %dx, %al
    testb $1, %al
    jz keys
    movw $0x3f8, %dx
    inb %dx, %al
    jmp act
keys:
    movb $1, %ah
    int $0x16
    jz again
    xorb %ah, %ah
    int $0x16
    testb %al, %al
    jnz act
    movb $'#', %al
act:
    cmpb $'R', %al
    je reset
    cmpb $'O', %al
    je off
    cmpb $'W', %al
    jne echo
    movw $changed, %si
    movw $0x7e00, %di
    movw $8, %cx
    rep movsb
    movw $0x0301, %ax
    movw $0x7e00, %bx
    movw $0x0002, %cx
    movb drive, %dl
    xorb %dh, %dh
    int $0x13
    movb $'w', %al
echo:
    call put
    jmp again
reset:
    movb $0xfe, %al
    outb %al, $0x64
    hlt
off:
    movw $0x604, %dx
    movw $0x2000, %ax
    outw %ax, %dx
    hlt
print:
    lodsb
    testb %al, %al
    jz done
    call put
    jmp print
done:
    ret
put:
    pushw %ax
    movw $0x3fd, %dx
1:  inb %dx, %al
    testb $0x20, %al
    jz 1b
    popw %ax
    movw $0x3f8, %dx
    outb %al, %dx
    ret
hello: .asciz "BOOT<"
end: .asciz ">\r\n"
changed: .ascii "changed\0"
drive: .byte 0
.org 510
.word 0xaa55
