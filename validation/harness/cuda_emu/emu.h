/// What the files of the emulated CUDA device share: failing, device memory, and asking for work on a stream.
/// One lock guards it all; work runs on the host thread that waits for it, with the lock held.
#ifndef HIRL_EMU_H
#define HIRL_EMU_H

#include "cuda_runtime_api.h"

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace hirl_emu {

/// Says "emulated device: ..." with what is running now, if anything, and aborts.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/// Every call of the interface begins with this: takes the lock, counts the call for HIRL_EMU_FAIL.
class entry {
  public:
    explicit entry(const char *name);
    ~entry();
    entry(const entry &) = delete;
    entry &operator=(const entry &) = delete;
    /// HIRL_EMU_FAIL asks for this call to fail.
    bool is_failing() const { return is_failing_; }

  private:
    bool is_failing_;
};

/// While one of these lives, its thread may touch device memory.
class opened {
  public:
    opened();
    ~opened();
    opened(const opened &) = delete;
    opened &operator=(const opened &) = delete;
};

enum class place { none, host, pinned, device, wild };
/// Where an address lies. `wild`: in the device's range, but in no allocation. An allocation's end counts as inside it.
place place_of(const void *ptr);
const char *place_text(place where);
/// Text like "64 bytes into an allocation of 256 bytes", valid until the next call by this thread.
const char *describe(const void *ptr);
/// Aborts unless [ptr, ptr + bytes) lies in one device allocation (or pinned one). `what`: who asks, for the message.
void require_device(const void *ptr, size_t bytes, const char *what);

/// What runs now, for messages; restored by the destructor.
struct running {
    const char *what;
    running *outer;
    explicit running(const char *what);
    ~running();
};

/// Adds work to a stream; it runs when something waits for it. `name` must live as long as the program.
cudaError_t enqueue(cudaStream_t stream, const char *name, std::function<void()> work);
/// Work that runs says how long it takes by the device's clock, besides the microsecond that all work takes. Events tell that clock's time, so
/// that what is chosen by timing is the same in every run. HIRL_EMU_FASTEST=N: libraries' algorithm N (from 1) is the fastest.
void spend(int64_t ns);
/// spend() of the algorithm `index`, from 1.
void spend_as_algorithm(int index);
/// Before the main thread may wait for other ranks: runs all that streams hold.
void run_before_mpi();
/// True if the handle is one of ours.
bool is_stream(cudaStream_t stream);
/// Work that is at its turn calls this to make the device fail from now on, as a fault on real hardware does.
void set_sticky_error(cudaError_t code);
cudaError_t sticky_error();
/// Remembers an error for cudaGetLastError and gives it back.
cudaError_t remember(cudaError_t code);

/// Called by the fault handler: prints block and thread if a kernel runs.
void describe_thread(char *text, size_t size);
/// True if the address is a guard page of a kernel thread's stack or of shared memory; says which in `text`.
bool describe_guard(const void *addr, char *text, size_t size);
/// True with HIRL_EMU_PARANOID=1: red zones are looked at after each piece of work.
bool is_paranoid();
int n_multiprocessors();
/// Largest dynamic shared memory that cudaFuncSetAttribute allowed for this kernel.
size_t allowed_shared(const void *func);

/// The static shared memory of a kernel; nothing where that is not known.
struct shared_variable {
    char *data;
    size_t bytes;
};
const std::vector<shared_variable> &shared_of(const void *kernel);

constexpr size_t default_shared = 48 << 10, most_shared = 227 << 10;

} // namespace hirl_emu
#endif
