// Writes a Fortran program that reads a chain of decks with read(unit, nml=...) and prints every key in the lines of
// hirl_deck_write_values, so that a deck can be checked against a reader we did not write. Each file is read twice over
// two different fillings of all variables: what agrees afterwards was read from the file. The names of the program's own
// variables begin with zz_, and no intrinsic function is called next to a group's variables, so keys may be named freely.
#include "deck_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// The parts that do not depend on the tables.
static const char *const MODULE_HEAD =
    "module zz_deck\n"
    "  implicit none\n"
    "  integer, parameter :: zz_i = selected_int_kind(18), zz_r = kind(1d0)\n";

static const char *const MODULE_BODY =
    "  interface zz_fill\n"
    "    module procedure zz_fill_int, zz_fill_real, zz_fill_bool, zz_fill_text\n"
    "  end interface\n"
    "  interface zz_merge\n"
    "    module procedure zz_merge_int, zz_merge_real, zz_merge_bool, zz_merge_text\n"
    "  end interface\n"
    "  interface zz_put\n"
    "    module procedure zz_put_int, zz_put_real, zz_put_bool, zz_put_text\n"
    "  end interface\n"
    "  interface zz_show\n"
    "    module procedure zz_show_int, zz_show_real, zz_show_bool, zz_show_text\n"
    "    module procedure zz_show_ints, zz_show_reals, zz_show_texts\n"
    "  end interface\n"
    "contains\n"
    "  elemental subroutine zz_fill_int(x, pass)\n"
    "    integer(zz_i), intent(out) :: x\n"
    "    integer, intent(in) :: pass\n"
    "    x = -7000000000000000000_zz_i - pass\n"
    "  end subroutine\n"
    "  elemental subroutine zz_fill_real(x, pass)\n"
    "    real(zz_r), intent(out) :: x\n"
    "    integer, intent(in) :: pass\n"
    "    x = -1.25e-300_zz_r * pass\n"
    "  end subroutine\n"
    "  elemental subroutine zz_fill_bool(x, pass)\n"
    "    logical, intent(out) :: x\n"
    "    integer, intent(in) :: pass\n"
    "    x = pass == 1\n"
    "  end subroutine\n"
    "  elemental subroutine zz_fill_text(x, pass)\n"
    "    character(len=*), intent(out) :: x\n"
    "    integer, intent(in) :: pass\n"
    "    x = char(pass)\n"
    "  end subroutine\n"
    "\n"
    "  elemental subroutine zz_merge_int(x, has, a, b, is_read)\n"
    "    integer(zz_i), intent(inout) :: x\n"
    "    integer(zz_i), intent(in) :: a, b\n"
    "    logical, intent(inout) :: has\n"
    "    logical, intent(out) :: is_read\n"
    "    is_read = a == b\n"
    "    if (is_read) x = a\n"
    "    has = has .or. is_read\n"
    "  end subroutine\n"
    "  elemental subroutine zz_merge_real(x, has, a, b, is_read)\n"
    "    real(zz_r), intent(inout) :: x\n"
    "    real(zz_r), intent(in) :: a, b\n"
    "    logical, intent(inout) :: has\n"
    "    logical, intent(out) :: is_read\n"
    "    is_read = transfer(a, 1_zz_i) == transfer(b, 1_zz_i)\n"
    "    if (is_read) x = a\n"
    "    has = has .or. is_read\n"
    "  end subroutine\n"
    "  elemental subroutine zz_merge_bool(x, has, a, b, is_read)\n"
    "    logical, intent(inout) :: x\n"
    "    logical, intent(in) :: a, b\n"
    "    logical, intent(inout) :: has\n"
    "    logical, intent(out) :: is_read\n"
    "    is_read = a .eqv. b\n"
    "    if (is_read) x = a\n"
    "    has = has .or. is_read\n"
    "  end subroutine\n"
    "  elemental subroutine zz_merge_text(x, has, a, b, is_read)\n"
    "    character(len=*), intent(inout) :: x\n"
    "    character(len=*), intent(in) :: a, b\n"
    "    logical, intent(inout) :: has\n"
    "    logical, intent(out) :: is_read\n"
    "    is_read = a == b\n"
    "    if (is_read) x = a\n"
    "    has = has .or. is_read\n"
    "  end subroutine\n"
    "\n"
    "  ! The last item that this file gave, if it gave any.\n"
    "  subroutine zz_note(is_read, last)\n"
    "    logical, intent(in) :: is_read(:)\n"
    "    integer, intent(inout) :: last\n"
    "    integer :: i\n"
    "    do i = size(is_read), 1, -1\n"
    "      if (is_read(i)) then\n"
    "        last = i\n"
    "        return\n"
    "      end if\n"
    "    end do\n"
    "  end subroutine\n"
    "\n"
    "  function zz_real(text) result(x)\n"
    "    character(len=*), intent(in) :: text\n"
    "    real(zz_r) :: x\n"
    "    read(text, *) x\n"
    "  end function\n"
    "\n"
    "  ! How many groups of this name a file holds: each begins a line.\n";

// In two parts: a compiler need not take longer constants.
static const char *const MODULE_TAIL =
    "  function zz_groups(path, group) result(n)\n"
    "    character(len=*), intent(in) :: path, group\n"
    "    integer :: n, unit, ios, i, j, c\n"
    "    character(len=256) :: line\n"
    "    character(len=63) :: name\n"
    "    n = 0\n"
    "    open(newunit=unit, file=trim(path), status='old', action='read', iostat=ios)\n"
    "    if (ios /= 0) call zz_stop(path, group, 'cannot open the file')\n"
    "    do\n"
    "      read(unit, '(a)', iostat=ios) line\n"
    "      if (ios /= 0) exit\n"
    "      i = verify(line, ' ' // achar(9) // char(239) // char(187) // char(191))\n"
    "      if (i == 0) cycle\n"
    "      if (line(i:i) /= '&') cycle\n"
    "      name = ''\n"
    "      do j = 1, 63\n"
    "        c = iachar(line(i+j:i+j))\n"
    "        if (c >= 65 .and. c <= 90) c = c + 32\n"
    "        if (.not. (c >= 97 .and. c <= 122 .or. c >= 48 .and. c <= 57 .or. c == 95)) exit\n"
    "        name(j:j) = achar(c)\n"
    "      end do\n"
    "      if (name == group) n = n + 1\n"
    "    end do\n"
    "    close(unit)\n"
    "  end function\n"
    "\n"
    "  subroutine zz_stop(path, group, message)\n"
    "    character(len=*), intent(in) :: path, group, message\n"
    "    print '(5a)', trim(path), ': group ', group, ': ', trim(message)\n"
    "    stop 1\n"
    "  end subroutine\n"
    "\n"
    "  subroutine zz_put_int(x)\n"
    "    integer(zz_i), intent(in) :: x\n"
    "    write(*, '(i0)', advance='no') x\n"
    "  end subroutine\n"
    "  subroutine zz_put_real(x)\n"
    "    real(zz_r), intent(in) :: x\n"
    "    character(len=24) :: text\n"
    "    if (x /= x) then\n"
    "      text = 'nan'\n"
    "    else if (x > huge(x)) then\n"
    "      text = 'inf'\n"
    "    else if (x < -huge(x)) then\n"
    "      text = '-inf'\n"
    "    else\n"
    "      write(text, '(es24.16e3)') x\n"
    "    end if\n"
    "    write(*, '(a)', advance='no') trim(adjustl(text))\n"
    "  end subroutine\n"
    "  subroutine zz_put_bool(x)\n"
    "    logical, intent(in) :: x\n"
    "    write(*, '(l1)', advance='no') x\n"
    "  end subroutine\n"
    "  subroutine zz_put_text(x)\n"
    "    character(len=*), intent(in) :: x\n"
    "    integer :: i\n"
    "    write(*, '(a)', advance='no') ''''\n"
    "    do i = 1, len_trim(x)\n"
    "      write(*, '(a)', advance='no') x(i:i)\n"
    "      if (x(i:i) == '''') write(*, '(a)', advance='no') ''''\n"
    "    end do\n"
    "    write(*, '(a)', advance='no') ''''\n"
    "  end subroutine\n";

// One kind of value: scalars, and lists, of which as many items are printed as the deck has ("want"; -1: as are known).
static const char *const SHOW_SCALAR = "\n"
                                       "  subroutine zz_show_%s(name, x, has)\n"
                                       "    character(len=*), intent(in) :: name\n"
                                       "    %s, intent(in) :: x\n"
                                       "    logical, intent(in) :: has\n"
                                       "    write(*, '(2a)', advance='no') name, ' ='\n"
                                       "    if (has) then\n"
                                       "      write(*, '(a)', advance='no') ' '\n"
                                       "      call zz_put(x)\n"
                                       "    else\n"
                                       "      write(*, '(a)', advance='no') ' (not set)'\n"
                                       "    end if\n"
                                       "    write(*, '(a)') ''\n"
                                       "  end subroutine\n";
static const char *const SHOW_LIST =
    "  subroutine zz_show_%ss(name, x, has, last, want)\n"
    "    character(len=*), intent(in) :: name\n"
    "    %s, intent(in) :: x(:)\n"
    "    logical, intent(in) :: has(:)\n"
    "    integer, intent(in) :: last, want\n"
    "    integer :: i, n\n"
    "    n = want\n"
    "    if (want < 0) n = count(has)\n"
    "    write(*, '(2a)', advance='no') name, ' ='\n"
    "    do i = 1, n\n"
    "      if (i > 1) write(*, '(a)', advance='no') ','\n"
    "      write(*, '(a)', advance='no') ' '\n"
    "      if (has(i)) call zz_put(x(i))\n"
    "    end do\n"
    "    if (last > n) write(*, '(a,i0,a)', advance='no') ' and ', last - n, ' more'\n"
    "    write(*, '(a)') ''\n"
    "  end subroutine\n";

static const char *fortran_type(hirl_key_type_t item_type) {
    switch (item_type) {
        case HIRL_KEY_INT: return "integer(zz_i)";
        case HIRL_KEY_REAL: return "real(zz_r)";
        case HIRL_KEY_BOOL: return "logical";
        default: return "character(len=zz_n_text)";
    }
}

// A character constant, in pieces so that no line is long.
static hirl_status_t append_constant(const char *value, hirl_text_t *text) {
    int column = 0;
    HIRL_TRY(hirl_text_append(text, "'"));
    for (const char *at = value; *at; at++) {
        if (column++ == 60) {
            HIRL_TRY(hirl_text_append(text, "' // &\n      '"));
            column = 1;
        }
        HIRL_TRY(hirl_text_append(text, *at == '\'' ? "''" : "%c", *at));
    }
    return hirl_text_append(text, "'");
}

static hirl_status_t append_default(const hirl_key_t *key, int number, const void *base, int item,
                                    hirl_text_t *text) {
    const void *at = hirl_deck_item_view(key, base, item);
    HIRL_TRY(hirl_text_append(text, "  zz_v%d", number));
    if (key_is_list(key)) HIRL_TRY(hirl_text_append(text, "(%d)", item + 1));
    HIRL_TRY(hirl_text_append(text, " = "));
    switch (key_item_type(key)) {
        case HIRL_KEY_INT: {
            // The lowest integer cannot be written as a constant.
            const int64_t value = *(const int64_t *)at;
            HIRL_TRY(hirl_text_append(text, "%lld_zz_i%s",
                                      (long long)(value == INT64_MIN ? value + 1 : value),
                                      value == INT64_MIN ? " - 1" : ""));
            break;
        }
        case HIRL_KEY_REAL:
            HIRL_TRY(hirl_text_append(text, "zz_real('"));
            HIRL_TRY(hirl_deck_append_item(key, base, item, text));
            HIRL_TRY(hirl_text_append(text, "')"));
            break;
        case HIRL_KEY_BOOL:
            HIRL_TRY(hirl_text_append(text, *(const bool *)at ? ".true." : ".false."));
            break;
        default: HIRL_TRY(append_constant(at, text)); break;
    }
    return hirl_text_append(text, "\n");
}

// The subroutine of one group; key k's own variables are zz_v (value), zz_h (has one), zz_a (first reading), zz_r (was
// read from the file), and for lists zz_l (last item read).
static hirl_status_t append_group(const hirl_deck_t *deck, int g, bool is_read, hirl_text_t *text) {
    const hirl_group_t *group = deck->groups[g];
    const void *defaults = group_base(deck, deck->defaults, g);
    HIRL_TRY(hirl_text_append(text,
                              "\nsubroutine zz_group_%d(zz_paths, zz_n_paths) ! %s\n"
                              "  use zz_deck\n"
                              "  implicit none\n"
                              "  integer, intent(in) :: zz_n_paths\n"
                              "  character(len=*), intent(in) :: zz_paths(zz_n_paths)\n"
                              "  integer :: zz_f\n",
                              g + 1, group->name));
    for (int k = 0; k < group->n_keys; k++) {
        const hirl_key_t *key = &group->keys[k];
        const char *type = fortran_type(key_item_type(key)),
                   *shape = key_is_list(key) ? "(zz_n_list)" : "";
        HIRL_TRY(hirl_text_append(text,
                                  "  %s :: %s%s\n"
                                  "  namelist /%s/ %s\n"
                                  "  %s :: zz_v%d%s, zz_a%d%s\n"
                                  "  logical :: zz_h%d%s, zz_r%d%s\n",
                                  type, key->name, shape, group->name, key->name, type, k, shape, k,
                                  shape, k, shape, k, shape));
        if (key_is_list(key)) HIRL_TRY(hirl_text_append(text, "  integer :: zz_l%d\n", k));
    }
    for (int k = 0; k < group->n_keys; k++) {
        const hirl_key_t *key = &group->keys[k];
        const int count = hirl_deck_count(key, &deck->default_state[deck->key0[g] + k]);
        if (key_is_list(key)) {
            HIRL_TRY(hirl_text_append(text, "  zz_l%d = 0\n  zz_h%d = .false.\n", k, k));
            if (count) HIRL_TRY(hirl_text_append(text, "  zz_h%d(1:%d) = .true.\n", k, count));
        } else {
            HIRL_TRY(hirl_text_append(text, "  zz_h%d = %s\n", k, count ? ".true." : ".false."));
        }
        for (int i = 0; i < count; i++) HIRL_TRY(append_default(key, k, defaults, i, text));
    }
    HIRL_TRY(hirl_text_append(text, "  do zz_f = 1, zz_n_paths\n"));
    for (int pass = 1; pass <= 2; pass++) {
        for (int k = 0; k < group->n_keys; k++) {
            HIRL_TRY(
                hirl_text_append(text, "    call zz_fill(%s, %d)\n", group->keys[k].name, pass));
        }
        HIRL_TRY(hirl_text_append(text, "    call zz_read(zz_paths(zz_f))\n"));
        for (int k = 0; k < group->n_keys; k++) {
            const char *name = group->keys[k].name;
            if (pass == 1) {
                HIRL_TRY(hirl_text_append(text, "    zz_a%d = %s\n", k, name));
                continue;
            }
            HIRL_TRY(hirl_text_append(
                text, "    call zz_merge(zz_v%d, zz_h%d, zz_a%d, %s, zz_r%d)\n", k, k, k, name, k));
            if (key_is_list(&group->keys[k])) {
                HIRL_TRY(hirl_text_append(text, "    call zz_note(zz_r%d, zz_l%d)\n", k, k));
            }
        }
    }
    HIRL_TRY(hirl_text_append(text, "  end do\n"));
    for (int k = 0; k < group->n_keys; k++) {
        const hirl_key_t *key = &group->keys[k];
        HIRL_TRY(hirl_text_append(text, "  call zz_show('%s%%%s', &\n    zz_v%d, zz_h%d",
                                  group->name, key->name, k, k));
        if (key_is_list(key)) {
            const int want = is_read ? hirl_deck_count(key, &deck->state[deck->key0[g] + k]) : -1;
            HIRL_TRY(hirl_text_append(text, ", zz_l%d, %d", k, want));
        }
        HIRL_TRY(hirl_text_append(text, ")\n"));
    }
    return hirl_text_append(text,
                            "contains\n"
                            "  subroutine zz_read(zz_path)\n"
                            "    character(len=*), intent(in) :: zz_path\n"
                            "    character(len=256) :: zz_message\n"
                            "    integer :: zz_unit, zz_ios, zz_j, zz_n\n"
                            "    zz_n = zz_groups(zz_path, '%s')\n"
                            "    if (zz_n == 0) return\n"
                            "    open(newunit=zz_unit, file=zz_path, status='old', action='read')\n"
                            "    do zz_j = 1, zz_n\n"
                            "      zz_message = ''\n"
                            "      read(zz_unit, nml=%s, iostat=zz_ios, iomsg=zz_message)\n"
                            "      if (zz_ios /= 0) call zz_stop(zz_path, '%s', zz_message)\n"
                            "    end do\n"
                            "    close(zz_unit)\n"
                            "  end subroutine\n"
                            "end subroutine\n",
                            group->name, group->name, group->name);
}

hirl_status_t hirl_deck_write_fortran(const hirl_deck_t *deck, const char *deck_path,
                                      hirl_text_t *text) {
    HIRL_REQUIRE(deck && text, HIRL_ERR_ARG, "no deck, or no text");
    static const struct {
        const char *name;
        hirl_key_type_t type;
    } KIND[] = {{"int", HIRL_KEY_INT},
                {"real", HIRL_KEY_REAL},
                {"bool", HIRL_KEY_BOOL},
                {"text", HIRL_KEY_TEXT}};
    HIRL_TRY(hirl_text_append(
        text, "! Reads decks with a Fortran namelist reader and prints every key: the decks named "
              "on the command\n! line in the order given, or those named below. Later decks "
              "override earlier ones.\n"));
    HIRL_TRY(hirl_text_append(
        text, "%s  integer, parameter :: zz_n_list = %d, zz_n_text = %d\n%s%s", MODULE_HEAD,
        HIRL_DECK_LIST_MAX, HIRL_DECK_TEXT_MAX - 1, MODULE_BODY, MODULE_TAIL));
    for (size_t i = 0; i < sizeof KIND / sizeof KIND[0]; i++) {
        const char *type = fortran_type(KIND[i].type);
        HIRL_TRY(hirl_text_append(text, SHOW_SCALAR, KIND[i].name, type));
        if (KIND[i].type != HIRL_KEY_BOOL)
            HIRL_TRY(hirl_text_append(text, SHOW_LIST, KIND[i].name, type));
    }
    HIRL_TRY(hirl_text_append(text, "end module\n"));
    const bool is_read = deck->n_files > 0;
    for (int g = 0; g < deck->n_groups; g++) HIRL_TRY(append_group(deck, g, is_read, text));
    const int n_files = is_read ? deck->n_files : deck_path ? 1 : 0;
    HIRL_TRY(hirl_text_append(text,
                              "\nprogram zz_main\n"
                              "  implicit none\n"
                              "  integer, parameter :: zz_n_path = 4096\n"
                              "  character(len=zz_n_path), allocatable :: zz_paths(:)\n"
                              "  integer :: zz_i, zz_n\n"
                              "  zz_n = command_argument_count()\n"
                              "  if (zz_n > 0) then\n"
                              "    allocate(zz_paths(zz_n))\n"
                              "    do zz_i = 1, zz_n\n"
                              "      call get_command_argument(zz_i, zz_paths(zz_i))\n"
                              "    end do\n"
                              "  else\n"
                              "    zz_n = %d\n"
                              "    allocate(zz_paths(zz_n))\n",
                              n_files));
    for (int i = 0; i < n_files; i++) {
        const bool is_last = i == n_files - 1;
        HIRL_TRY(hirl_text_append(text, "    zz_paths(%d) = ", i + 1));
        HIRL_TRY(append_constant(is_last && deck_path ? deck_path : deck->files[i], text));
        HIRL_TRY(hirl_text_append(text, "\n"));
    }
    HIRL_TRY(hirl_text_append(text, "  end if\n"));
    for (int g = 0; g < deck->n_groups; g++) {
        HIRL_TRY(hirl_text_append(text, "  call zz_group_%d(zz_paths, zz_n)\n", g + 1));
    }
    return hirl_text_append(text, "end program\n");
}
