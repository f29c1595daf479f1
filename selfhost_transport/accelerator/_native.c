/* The compiled twins of the functions in plain.py, which says what they do. Each works on bytes objects that its caller
 * holds, calls nothing that could change them, writes only into an object whose size it computed, and compares the end of
 * what it wrote with that size. Input that it does not expect is answered with None, and Python deals with it. Only the
 * stable ABI is used: one binary for all versions. */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

/* A binary that newer headers made runs on older interpreters too, so nothing that those headers changed is used:
 * Py_RETURN_NONE counts no reference since 3.12, and `#` in a format needs 3.13 when its headers compiled it. */
static PyObject *none(void)
{
    Py_INCREF(Py_None);
    return Py_None;
}

#define MS_DIGITS 14
#define COUNTER_DIGITS 3
#define EPOCH 10
#define POSITION (MS_DIGITS + 1 + COUNTER_DIGITS + 1 + EPOCH)
#define ITEM (POSITION + 4)
#define MOST_BYTES (PY_SSIZE_T_MAX / 16)

typedef struct {
    const unsigned char *at;
    Py_ssize_t size;
} Span;

/* 1, or 0 with TypeError set. */
static int span_of(PyObject *object, Span *span)
{
    char *at;
    if (PyBytes_AsStringAndSize(object, &at, &span->size) < 0) return 0;
    span->at = (const unsigned char *)at;
    return 1;
}

static unsigned char *put(unsigned char *to, const void *from, Py_ssize_t size)
{
    memcpy(to, from, (size_t)size);
    return to + size;
}

#define PUT_TEXT(to, text) put(to, text, (Py_ssize_t)sizeof(text) - 1)

static int is_digit(unsigned char byte) { return byte >= '0' && byte <= '9'; }

/* Reads up to `most` digits; how many there were. */
static Py_ssize_t read_number(const unsigned char *at, const unsigned char *end, Py_ssize_t most, unsigned long long *value)
{
    Py_ssize_t count = 0;
    *value = 0;
    while (at + count < end && count < most && is_digit(at[count])) {
        *value = *value * 10 + (unsigned long long)(at[count] - '0');
        count++;
    }
    return count;
}

static unsigned char *put_padded(unsigned char *to, unsigned long long value, int digits)
{
    for (int index = digits - 1; index >= 0; index--) {
        to[index] = (unsigned char)('0' + value % 10);
        value /= 10;
    }
    return to + digits;
}

static int digits_of(unsigned long long value)
{
    int digits = 1;
    while (value >= 10) { value /= 10; digits++; }
    return digits;
}

static unsigned char *put_big_endian(unsigned char *to, unsigned long long value, int bytes)
{
    for (int index = bytes - 1; index >= 0; index--) {
        to[index] = (unsigned char)(value & 0xFF);
        value >>= 8;
    }
    return to + bytes;
}

/* msgpack: an unsigned number, and the head of a text, both in their shortest form. */

static Py_ssize_t number_size(unsigned long long value)
{
    return value < 0x80 ? 1 : value <= 0xFF ? 2 : value <= 0xFFFF ? 3 : value <= 0xFFFFFFFFull ? 5 : 9;
}

static unsigned char *put_number(unsigned char *to, unsigned long long value)
{
    switch (number_size(value)) {
    case 1: *to++ = (unsigned char)value; return to;
    case 2: *to++ = 0xCC; return put_big_endian(to, value, 1);
    case 3: *to++ = 0xCD; return put_big_endian(to, value, 2);
    case 5: *to++ = 0xCE; return put_big_endian(to, value, 4);
    default: *to++ = 0xCF; return put_big_endian(to, value, 8);
    }
}

static Py_ssize_t text_head_size(Py_ssize_t length)
{
    return length < 32 ? 1 : length < 0x100 ? 2 : length < 0x10000 ? 3 : 5;
}

static unsigned char *put_text_head(unsigned char *to, Py_ssize_t length)
{
    switch (text_head_size(length)) {
    case 1: *to++ = (unsigned char)(0xA0 | length); return to;
    case 2: *to++ = 0xD9; return put_big_endian(to, (unsigned long long)length, 1);
    case 3: *to++ = 0xDA; return put_big_endian(to, (unsigned long long)length, 2);
    default: *to++ = 0xDB; return put_big_endian(to, (unsigned long long)length, 4);
    }
}

/* Reads `[text]`, all of `body`; 0 for anything else. */
static int read_chunk(Span body, Span *text)
{
    const unsigned char *at = body.at;
    Py_ssize_t head, length = 0;
    if (body.size < 2 || at[0] != 0x91) return 0;
    if (at[1] >= 0xA0 && at[1] <= 0xBF) {
        head = 2;
        length = at[1] & 0x1F;
    } else {
        Py_ssize_t bytes = at[1] == 0xD9 ? 1 : at[1] == 0xDA ? 2 : at[1] == 0xDB ? 4 : 0;
        head = 2 + bytes;
        if (bytes == 0 || body.size < head) return 0;
        for (Py_ssize_t index = 2; index < head; index++) length = length * 256 + at[index];
    }
    if (length != body.size - head) return 0;
    text->at = at + head;
    text->size = length;
    return 1;
}

/* 1 for UTF-8, 0 for anything else, -1 with an exception set. */
static int is_utf8(Span text)
{
    Py_ssize_t index = 0;
    while (index < text.size && text.at[index] < 0x80) index++;
    if (index == text.size) return 1;
    PyObject *decoded = PyUnicode_DecodeUTF8((const char *)text.at + index, text.size - index, "strict");
    if (decoded != NULL) {
        Py_DECREF(decoded);
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) return -1;
    PyErr_Clear();
    return 0;
}

/* JSON */

static Py_ssize_t escaped_size(unsigned char byte)
{
    if (byte >= 0x20) return byte == '"' || byte == '\\' ? 2 : 1;
    return byte == '\b' || byte == '\t' || byte == '\n' || byte == '\f' || byte == '\r' ? 2 : 6;
}

static Py_ssize_t json_size(Span text)
{
    Py_ssize_t size = 2;
    for (Py_ssize_t index = 0; index < text.size; index++) size += escaped_size(text.at[index]);
    return size;
}

static unsigned char *put_json(unsigned char *to, Span text)
{
    static const char HEX[] = "0123456789abcdef";
    *to++ = '"';
    for (Py_ssize_t index = 0; index < text.size; index++) {
        unsigned char byte = text.at[index];
        switch (escaped_size(byte)) {
        case 1:
            *to++ = byte;
            break;
        case 2:
            *to++ = '\\';
            *to++ = byte == '\b' ? 'b' : byte == '\t' ? 't' : byte == '\n' ? 'n' : byte == '\f' ? 'f' : byte == '\r' ? 'r' : byte;
            break;
        default:
            to = PUT_TEXT(to, "\\u00");
            *to++ = (unsigned char)HEX[byte >> 4];
            *to++ = (unsigned char)HEX[byte & 15];
        }
    }
    *to++ = '"';
    return to;
}

/* The websocket's header */

static Py_ssize_t header_size(Py_ssize_t payload) { return payload <= 125 ? 2 : payload <= 0xFFFF ? 4 : 10; }

static unsigned char *put_header(unsigned char *to, int json, Py_ssize_t payload)
{
    *to++ = json ? 0x81 : 0x82;
    switch (header_size(payload)) {
    case 2: *to++ = (unsigned char)payload; return to;
    case 4: *to++ = 126; return put_big_endian(to, (unsigned long long)payload, 2);
    default: *to++ = 127; return put_big_endian(to, (unsigned long long)payload, 8);
    }
}

/* What changes from append to append. */
typedef struct {
    Span text;
    unsigned long long ms;
    unsigned char item[ITEM];
} Append;

static Py_ssize_t frame_size(const Append *append, int json, Span head, Span between, Py_ssize_t *payload_size)
{
    Py_ssize_t payload = head.size + between.size;
    if (json) {
        payload += json_size(append->text) + 1 + ITEM + 1 + (Py_ssize_t)sizeof(",\"timestamp\":") - 1 + digits_of(append->ms)
                   + (Py_ssize_t)sizeof("}}],\"channelSerial\":\"") - 1 + POSITION + 2;
    } else {
        payload += text_head_size(append->text.size) + append->text.size + text_head_size(ITEM) + ITEM
                   + (Py_ssize_t)sizeof("\xa9timestamp") - 1 + number_size(append->ms)
                   + (Py_ssize_t)sizeof("\xad" "channelSerial") - 1 + text_head_size(POSITION) + POSITION;
    }
    *payload_size = payload;
    return header_size(payload) + payload;
}

/* Writes the frame whose payload has that size; returns its end. */
static unsigned char *put_frame(
    unsigned char *to, const Append *append, int json, Span head, Span between, Py_ssize_t payload)
{
    to = put_header(to, json, payload);
    to = put(to, head.at, head.size);
    if (json) {
        to = put_json(to, append->text);
        to = put(to, between.at, between.size);
        *to++ = '"';
        to = put(to, append->item, ITEM);
        to = PUT_TEXT(to, "\",\"timestamp\":");
        to = put_padded(to, append->ms, digits_of(append->ms));
        to = PUT_TEXT(to, "}}],\"channelSerial\":\"");
        to = put(to, append->item, POSITION);
        to = PUT_TEXT(to, "\"}");
    } else {
        to = put_text_head(to, append->text.size);
        to = put(to, append->text.at, append->text.size);
        to = put(to, between.at, between.size);
        to = put_text_head(to, ITEM);
        to = put(to, append->item, ITEM);
        to = PUT_TEXT(to, "\xa9timestamp");
        to = put_number(to, append->ms);
        to = PUT_TEXT(to, "\xad" "channelSerial");
        to = put_text_head(to, POSITION);
        to = put(to, append->item, POSITION);
    }
    return to;
}

static PyObject *frame_of(const Append *append, int json, Span head, Span between)
{
    Py_ssize_t payload, size = frame_size(append, json, head, between, &payload);
    PyObject *frame = PyBytes_FromStringAndSize(NULL, size);
    if (frame == NULL) return NULL;
    unsigned char *begin = (unsigned char *)PyBytes_AsString(frame);
    if (put_frame(begin, append, json, head, between, payload) != begin + size)
        Py_FatalError("selfhost_transport: a frame has another size than computed");
    return frame;
}

/* The frame by one template `(json, head, between)`. */
static PyObject *frame_by(const Append *append, PyObject *template)
{
    Span head, between;
    if (!PyTuple_Check(template) || PyTuple_Size(template) != 3) {
        PyErr_SetString(PyExc_TypeError, "a template is a tuple of three");
        return NULL;
    }
    int json = PyTuple_GetItem(template, 0) == Py_True;
    if (!span_of(PyTuple_GetItem(template, 1), &head) || !span_of(PyTuple_GetItem(template, 2), &between)) return NULL;
    if (head.size > MOST_BYTES || between.size > MOST_BYTES) return PyErr_NoMemory();
    return frame_of(append, json, head, between);
}

/* 1 where `notification` is the next append to the message, 0 where it is not, -1 with an exception set. */
static int read_append(Span notification, Span last, Span entry_head, Span epoch, Append *append, Py_ssize_t *name)
{
    const unsigned char *at = notification.at, *end = at + notification.size;
    unsigned long long counter;
    Py_ssize_t digits = read_number(at, end, MS_DIGITS, &append->ms);
    at += digits;
    if (digits == 0 || at == end || *at++ != '-') return 0;
    digits = read_number(at, end, COUNTER_DIGITS, &counter);
    at += digits;
    *name = at - notification.at;
    if (digits == 0 || at == end || *at++ != ' ') return 0;
    if (end - at < last.size || memcmp(at, last.at, (size_t)last.size) != 0) return 0;
    at += last.size;
    if (at == end || *at++ != ' ') return 0;
    if (end - at < entry_head.size || memcmp(at, entry_head.at, (size_t)entry_head.size) != 0) return 0;
    at += entry_head.size;
    if (!read_chunk((Span){at, end - at}, &append->text)) return 0;
    if (append->text.size > MOST_BYTES || epoch.size != EPOCH) return 0;
    for (int index = 0; index < EPOCH; index++) {
        unsigned char byte = epoch.at[index];
        if (!is_digit(byte) && (byte < 'a' || byte > 'z')) return 0;
    }
    unsigned char *to = put_padded(append->item, append->ms, MS_DIGITS);
    *to++ = '-';
    to = put_padded(to, counter, COUNTER_DIGITS);
    *to++ = '@';
    to = put(to, epoch.at, EPOCH);
    PUT_TEXT(to, ":000");
    return is_utf8(append->text);
}

static PyObject *append_frames(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Span notification, last, entry_head, epoch;
    Append append;
    Py_ssize_t name_size = 0;
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "append_frames takes five arguments");
        return NULL;
    }
    if (!span_of(arguments[0], &notification) || !span_of(arguments[1], &last) || !span_of(arguments[2], &entry_head)
        || !span_of(arguments[3], &epoch))
        return NULL;
    PyObject *templates = arguments[4];
    if (!PyTuple_Check(templates)) {
        PyErr_SetString(PyExc_TypeError, "templates are a tuple");
        return NULL;
    }
    int is_next = read_append(notification, last, entry_head, epoch, &append, &name_size);
    if (is_next < 0) return NULL;
    if (is_next == 0) return none();
    Py_ssize_t size = PyTuple_Size(templates);
    PyObject *frames = PyTuple_New(size);
    if (frames == NULL) return NULL;
    for (Py_ssize_t index = 0; index < size; index++) {
        PyObject *frame = frame_by(&append, PyTuple_GetItem(templates, index));
        if (frame == NULL || PyTuple_SetItem(frames, index, frame) < 0) {
            Py_DECREF(frames);
            return NULL;
        }
    }
    PyObject *name = PyBytes_FromStringAndSize((const char *)notification.at, name_size);
    if (name == NULL) {
        Py_DECREF(frames);
        return NULL;
    }
    return Py_BuildValue("(NKN)", name, append.ms, frames);
}

/* Redis' protocol */

static Py_ssize_t bulk_size(Py_ssize_t length)
{
    return 1 + digits_of((unsigned long long)length) + 2 + length + 2;
}

static unsigned char *put_bulk_head(unsigned char *to, Py_ssize_t length)
{
    *to++ = '$';
    to = put_padded(to, (unsigned long long)length, digits_of((unsigned long long)length));
    return PUT_TEXT(to, "\r\n");
}

static PyObject *append_command(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Span head, chunk, entry_head;
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "append_command takes four arguments");
        return NULL;
    }
    if (!span_of(arguments[0], &head) || !span_of(arguments[2], &chunk) || !span_of(arguments[3], &entry_head)) return NULL;
    unsigned long long offset = PyLong_AsUnsignedLongLong(arguments[1]);
    if (offset == (unsigned long long)-1 && PyErr_Occurred()) return NULL;
    if (head.size > MOST_BYTES || chunk.size > MOST_BYTES || entry_head.size > MOST_BYTES) return PyErr_NoMemory();
    if ((unsigned long long)chunk.size > 0xFFFFFFFFull) {
        PyErr_SetString(PyExc_ValueError, "a chunk has at most 2**32 - 1 bytes");
        return NULL;
    }
    Py_ssize_t digits = digits_of(offset);
    Py_ssize_t entry = entry_head.size + 1 + text_head_size(chunk.size);
    Py_ssize_t size = head.size + bulk_size(digits) + bulk_size(chunk.size) + bulk_size(entry);
    PyObject *command = PyBytes_FromStringAndSize(NULL, size);
    if (command == NULL) return NULL;
    unsigned char *begin = (unsigned char *)PyBytes_AsString(command);
    unsigned char *to = put(begin, head.at, head.size);
    to = put_bulk_head(to, digits);
    to = put_padded(to, offset, (int)digits);
    to = PUT_TEXT(to, "\r\n");
    to = put_bulk_head(to, chunk.size);
    to = put(to, chunk.at, chunk.size);
    to = PUT_TEXT(to, "\r\n");
    to = put_bulk_head(to, entry);
    to = put(to, entry_head.at, entry_head.size);
    *to++ = 0x91;
    to = put_text_head(to, chunk.size);
    to = PUT_TEXT(to, "\r\n");
    if (to != begin + size) Py_FatalError("selfhost_transport: a command has another size than computed");
    return command;
}

#include "_fan_out.h"

static PyMethodDef METHODS[] = {
    {"hand_out", (PyCFunction)(void (*)(void))hand_out, METH_VARARGS, NULL},
    {"send_all", (PyCFunction)(void (*)(void))send_all, METH_O, NULL},
    {"append_frames", (PyCFunction)(void (*)(void))append_frames, METH_FASTCALL, NULL},
    {"append_command", (PyCFunction)(void (*)(void))append_command, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

/* To be raised with every change of what the functions take or return: a binary of another one is not used. */
static int add_contract(PyObject *module) { return PyModule_AddIntConstant(module, "CONTRACT", 2); }

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, (void *)add_contract}, {Py_mod_exec, (void *)add_types}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_native", "Compiled twins of what every token passes through.", sizeof(State), METHODS, SLOTS,
    traverse_module, clear_module, NULL,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&MODULE); }
