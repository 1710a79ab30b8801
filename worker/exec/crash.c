/* SPDX-License-Identifier: MPL-2.0 */
#define _GNU_SOURCE /* REG_RIP, sigabbrev_np */
#include "worker/exec/crash.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define CRASH_STACK_SIZE    131072 /* backtrace() and what a sanitizer adds to each frame */
#define BACKTRACE_COUNT_MAX 64
#define LINE_SIZE           512

/* The signals that mean a crash. */
static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP};
#define CRASH_SIGNAL_COUNT (sizeof(crash_signals) / sizeof(crash_signals[0]))

/* What the signal handler needs; written before the first handler runs. */
static struct {
    struct crash_record *record;
    int probe_fds[2]; /* a pipe: what can be written to it can be read */
    atomic_bool is_forgotten;
    atomic_int signal; /* of the first crash; 0: none */
} crash = {.probe_fds = {-1, -1}};

/* initial-exec: a signal handler must not be the first to touch a thread's variable, if that
 * allocates. */
#define THREAD_VARIABLE static _Thread_local __attribute__((tls_model("initial-exec")))
THREAD_VARIABLE const struct crash_place *volatile place_here;
THREAD_VARIABLE volatile sig_atomic_t is_crashing_here;
THREAD_VARIABLE void *stack_here;
THREAD_VARIABLE stack_t stack_before;

/* ---- text, without allocation ---- */

struct line {
    char text[LINE_SIZE];
    size_t size;
};

static void add_bytes(struct line *line, struct bytes text)
{
    for (size_t i = 0; i < text.size && line->size < LINE_SIZE; i++) {
        line->text[line->size++] = (char)text.data[i];
    }
}

static void add_text(struct line *line, const char *text)
{
    add_bytes(line, bytes_from_text(text));
}

static void add_hex(struct line *line, uint64_t number)
{
    static const char digits[] = "0123456789abcdef";
    int shift = 60;
    while (shift > 0 && number >> shift == 0) {
        shift -= 4;
    }
    add_text(line, "0x");
    for (; shift >= 0; shift -= 4) {
        const char digit[2] = {digits[number >> shift & 0xf], '\0'};
        add_text(line, digit);
    }
}

static void write_line(const struct line *line)
{
    size_t done = 0;
    while (done < line->size) {
        const ssize_t size = write(STDERR_FILENO, line->text + done, line->size - done);
        if (size <= 0) {
            return;
        }
        done += (size_t)size;
    }
}

/* ---- where it crashed ---- */

struct registers {
    bool is_known; /* of this kind of machine */
    uint64_t pc;
    uint64_t stack;
    uint64_t link; /* the return address, on machines that keep it in a register */
};

static struct registers read_registers(const ucontext_t *context)
{
#if defined(__x86_64__)
    return (struct registers){
        .is_known = true,
        .pc = (uint64_t)context->uc_mcontext.gregs[REG_RIP],
        .stack = (uint64_t)context->uc_mcontext.gregs[REG_RSP],
    };
#elif defined(__aarch64__)
    return (struct registers){
        .is_known = true,
        .pc = context->uc_mcontext.pc,
        .stack = context->uc_mcontext.sp,
        .link = context->uc_mcontext.regs[30],
    };
#else
    (void)context;
    return (struct registers){0};
#endif
}

static const void *pointer_from(uint64_t address)
{
    return (const void *)(uintptr_t)address; /* NOLINT(performance-no-int-to-ptr) */
}

/* Whether memory is there: the kernel looks, so that we need not. */
static bool is_readable(uint64_t address, size_t size)
{
    /* Not write(): a sanitizer would look at the memory before the kernel does. */
    return syscall(SYS_write, crash.probe_fds[1], pointer_from(address), size) != -1 ||
           errno != EFAULT;
}

/* A sanitizer would say that these bytes are nobody's variable, which is so. */
__attribute__((no_sanitize("address"))) static uint64_t
return_address_from(const struct registers *registers)
{
    if (registers->link != 0) {
        return registers->link;
    }
    if (registers->stack % sizeof(uint64_t) != 0 ||
        !is_readable(registers->stack, sizeof(uint64_t))) {
        return 0;
    }
    return *(const volatile uint64_t *)pointer_from(registers->stack);
}

/* A signal that was sent has no address, and the kernel does not know it where the machine does not
 * tell (an address that no pointer can have). */
static bool has_address(int signal_number, int code)
{
    return (signal_number == SIGSEGV || signal_number == SIGBUS) && code > 0 && code != SI_KERNEL;
}

static void fill_record(struct crash_record *record, int signal_number, const siginfo_t *info,
                        const struct registers *registers)
{
    const struct crash_place *place = place_here;
    const bool is_address_known = has_address(signal_number, info->si_code);
    record->signal = signal_number;
    record->code = info->si_code;
    record->cell = place != NULL ? place->cell : UINT32_MAX;
    record->address = is_address_known ? (uint64_t)(uintptr_t)info->si_addr : 0;
    record->pc = registers->pc;
    /* A fault at pc itself is that of fetching an instruction: a jump to where no code is. */
    record->is_wild =
        registers->is_known &&
        ((is_address_known && record->address == registers->pc) || !is_readable(registers->pc, 1));
    record->return_address = record->is_wild != 0 ? return_address_from(registers) : 0;
}

/* ---- the words ---- */

static void tell(const struct crash_record *record)
{
    struct line line = {.size = 0};
    const char *name = sigabbrev_np(record->signal);
    const struct crash_place *place = place_here;
    add_text(&line, "treadle: crash: SIG");
    add_text(&line, name != NULL ? name : "?");
    if (has_address(record->signal, record->code)) {
        add_text(&line, " at address ");
        add_hex(&line, record->address);
    }
    add_text(&line, ", pc ");
    add_hex(&line, record->pc);
    if (record->is_wild != 0) {
        add_text(&line, " (no code), return address ");
        add_hex(&line, record->return_address);
    }
    if (place != NULL && place->cell != UINT32_MAX) {
        add_text(&line, ", attempt of ");
        add_bytes(&line, place->service);
        add_text(&line, ".");
        add_bytes(&line, place->task);
    }
    add_text(&line, "\n");
    write_line(&line);
}

/* From the frame that crashed on: those before it are ours and the kernel's. */
static void tell_backtrace(const struct crash_record *record)
{
    void *frames[BACKTRACE_COUNT_MAX];
    int first = 0;
    if (record->is_wild != 0) { /* backtrace() would crash; who called is what can be had */
        frames[0] = (void *)(uintptr_t)record->return_address;
        backtrace_symbols_fd(frames, 1, STDERR_FILENO);
        return;
    }
    const int count = backtrace(frames, BACKTRACE_COUNT_MAX);
    for (int i = 0; i < count; i++) {
        if ((uint64_t)(uintptr_t)frames[i] == record->pc) {
            first = i;
            break;
        }
    }
    backtrace_symbols_fd(frames + first, count - first, STDERR_FILENO);
}

/* ---- the signal handler ---- */

_Noreturn static void die_of(int signal_number)
{
    sigset_t set;
    struct sigaction action = {.sa_handler = SIG_DFL};
    (void)sigaction(signal_number, &action, NULL);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, signal_number);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    (void)raise(signal_number);
    _exit(128 + signal_number); /* not reached: the signal's default is to end the process */
}

static void on_crash(int signal_number, siginfo_t *info, void *context)
{
    int none = 0;
    struct crash_record record = {0};
    if (atomic_load(&crash.is_forgotten)) {
        die_of(signal_number);
    }
    if (is_crashing_here != 0) { /* what follows crashed itself */
        die_of(atomic_load(&crash.signal));
    }
    is_crashing_here = 1;
    while (!atomic_compare_exchange_strong(&crash.signal, &none, signal_number)) {
        (void)pause(); /* another thread was first, and ends the process */
        none = 0;
    }
    const struct registers registers = read_registers(context);
    fill_record(&record, signal_number, info, &registers);
    if (crash.record != NULL) {
        *crash.record = record;
        atomic_thread_fence(memory_order_release);
        *(volatile uint32_t *)&crash.record->is_set = 1;
    }
    tell(&record);
    tell_backtrace(&record);
    die_of(signal_number);
}

/* ---- opening ---- */

bool crash_open(struct crash_record *record)
{
    void *frame = NULL;
    struct sigaction action = {.sa_sigaction = on_crash};
    crash.record = record;
    atomic_store(&crash.is_forgotten, false);
    atomic_store(&crash.signal, 0);
    if (crash.probe_fds[0] == -1 && pipe2(crash.probe_fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        return false;
    }
    (void)backtrace(&frame, 1); /* loads what it needs now: in a crash it must not allocate */
    /* NODEFER: a second crash is to find its way here, not to hide the signal of the first. */
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < CRASH_SIGNAL_COUNT; i++) {
        if (sigaction(crash_signals[i], &action, NULL) != 0) {
            return false;
        }
    }
    return true;
}

void crash_forget(void)
{
    atomic_store(&crash.is_forgotten, true);
}

bool crash_thread_open(void)
{
    const size_t guard_size = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, guard_size + CRASH_STACK_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) {
        return false;
    }
    const stack_t stack = {
        .ss_sp = (char *)memory + guard_size,
        .ss_size = CRASH_STACK_SIZE,
    };
    if (mprotect(memory, guard_size, PROT_NONE) != 0 || sigaltstack(&stack, &stack_before) != 0) {
        (void)munmap(memory, guard_size + CRASH_STACK_SIZE);
        return false;
    }
    stack_here = memory;
    return true;
}

void crash_thread_close(void)
{
    if (stack_here != NULL) {
        (void)sigaltstack(&stack_before, NULL); /* a sanitizer gives its own back at the end */
        (void)munmap(stack_here, (size_t)sysconf(_SC_PAGESIZE) + CRASH_STACK_SIZE);
        stack_here = NULL;
    }
}

void crash_set_place(const struct crash_place *place)
{
    place_here = place;
}
