/// Static shared memory of kernels: where it lies and how large it is, from the program's own symbols. `__shared__` marks its
/// variables with a tag that becomes part of their symbols: _ZZ<function>E<variable>B11hirl_shared. A stripped program has no
/// symbols, and its shared memory then is not looked after.
#include "emu.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <unordered_map>
#include <vector>

namespace hirl_emu {
namespace {

struct variable {
    char *data;
    size_t bytes;
    std::string function; // mangled, without _Z
};

struct program {
    std::vector<variable> variables;
    std::unordered_map<const void *, std::string> functions; // those that own variables
    program();
};

int first_object(struct dl_phdr_info *info, size_t, void *base) {
    *(uintptr_t *)base = info->dlpi_addr; // the program comes first
    return 1;
}

program::program() {
    const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat facts;
    if (file < 0 || fstat(file, &facts) != 0) return;
    const size_t size = (size_t)facts.st_size;
    const char *at = (const char *)mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (at == (const char *)MAP_FAILED) return;
    uintptr_t base = 0;
    dl_iterate_phdr(first_object, &base);
    const ElfW(Ehdr) *head = (const ElfW(Ehdr) *)at;
    const ElfW(Shdr) *sections = (const ElfW(Shdr) *)(at + head->e_shoff);
    static const char tag[] = "B11hirl_shared";
    for (int pass = 0; pass < 2; ++pass) // variables, then the functions that own them
        for (int i = 0; i < head->e_shnum; ++i) {
            if (sections[i].sh_type != SHT_SYMTAB) continue;
            const ElfW(Sym) *symbols = (const ElfW(Sym) *)(at + sections[i].sh_offset);
            const char *names = at + sections[sections[i].sh_link].sh_offset;
            for (size_t k = 0; k < sections[i].sh_size / sizeof *symbols; ++k) {
                const char *name = names + symbols[k].st_name;
                char *address = (char *)(base + symbols[k].st_value);
                const int type = symbols[k].st_info & 15;
                if (pass == 0 && type == STT_OBJECT && strncmp(name, "_ZZ", 3) == 0 &&
                    strstr(name, tag) != nullptr)
                    variables.push_back({address, symbols[k].st_size, name + 3});
                if (pass == 1 && type == STT_FUNC && strncmp(name, "_Z", 2) == 0) {
                    const std::string start = std::string(name + 2) + "E";
                    for (const variable &v : variables)
                        if (v.function.compare(0, start.size(), start) == 0)
                            functions[address] = start;
                }
            }
        }
    munmap((void *)at, size);
}

} // namespace

const std::vector<shared_variable> &shared_of(const void *kernel) {
    static const program own;
    static std::unordered_map<const void *, std::vector<shared_variable>> known;
    auto found = known.find(kernel);
    if (found != known.end()) return found->second;
    std::vector<shared_variable> &list = known[kernel];
    auto function = own.functions.find(kernel);
    if (function != own.functions.end())
        for (const variable &v : own.variables)
            if (v.function.compare(0, function->second.size(), function->second) == 0)
                list.push_back({v.data, v.bytes});
    return list;
}

} // namespace hirl_emu
