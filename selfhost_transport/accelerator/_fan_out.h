/* The compiled twins of the classes in plain_fan_out.py, which says what they do: from the notifications of one read to
 * the sockets of their readers. Included by _native.c, whose functions read the notifications and write the frames.
 *
 * What is written to a socket that is free leaves here, by one send(2) for each socket and read; what the socket does not
 * take goes to Python with all that comes after it, until that has left too. */
#include <stddef.h>
#include <structmember.h>
#ifndef _WIN32
#include <sys/socket.h>
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#define MAX_JOINED 32768

typedef struct {
    PyObject_HEAD
    PyObject *spill;
    unsigned char *at;
    Py_ssize_t size, room;
    int fd;
    char closed, congested;
} Buffer;

typedef struct {
    int json;
    Span head, between;
    Py_ssize_t count;
    Buffer **buffers;
} Group;

typedef struct {
    PyObject_HEAD
    /* Holds everything that the groups point into. */
    PyObject *held;
    Span entry_head, epoch;
    Py_ssize_t count;
    Group *groups;
    Py_ssize_t last_size;
    unsigned char last[MS_DIGITS + COUNTER_DIGITS + 2];
} Lane;

typedef struct {
    PyObject_HEAD
    PyObject *callback, *lane;
    char waiting;
} Way;

typedef struct {
    PyTypeObject *buffer, *lane, *way;
} State;

static PyObject *new_object(PyTypeObject *type)
{
    return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
}

static void free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* A buffer: what waits for one socket */

/* Room for so many bytes more, or NULL with MemoryError set. */
static unsigned char *buffer_room(Buffer *self, Py_ssize_t more)
{
    if (self->size + more > self->room) {
        Py_ssize_t room = self->size + more;
        if (self->size > 0) room += room / 2;
        unsigned char *at = PyMem_Realloc(self->at, (size_t)room);
        if (at == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        self->at = at;
        self->room = room;
    }
    return self->at + self->size;
}

/* Passes everything on: to the socket, and to Python what that does not take. 0, or -1 with an exception set. */
static int buffer_flush(Buffer *self)
{
    unsigned char *at = self->at;
    Py_ssize_t size = self->size, sent = 0;
    if (size == 0) return 0;
    self->at = NULL;
    self->size = self->room = 0;
#ifndef _WIN32
    if (self->fd >= 0) {
        /* Whatever is wrong shows when Python tries the same. */
        sent = send(self->fd, at, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) sent = 0;
    }
#endif
    if (sent == size || self->spill == NULL) {
        PyMem_Free(at);
        return 0;
    }
    PyObject *rest = PyBytes_FromStringAndSize((char *)at + sent, size - sent);
    PyMem_Free(at);
    if (rest == NULL) return -1;
    PyObject *spill = self->spill;
    Py_INCREF(spill);
    PyObject *done = PyObject_CallFunctionObjArgs(spill, rest, NULL);
    Py_DECREF(spill);
    Py_DECREF(rest);
    if (done == NULL) return -1;
    Py_DECREF(done);
    return 0;
}

/* So many bytes were written behind those there are. 0, or -1 with an exception set. */
static int buffer_wrote(Buffer *self, Py_ssize_t count, PyObject *touched)
{
    int is_first = self->size == 0;
    self->size += count;
    if (is_first && PyList_Append(touched, (PyObject *)self) < 0) return -1;
    return self->size > MAX_JOINED ? buffer_flush(self) : 0;
}

static PyObject *buffer_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    PyObject *spill;
    if (!PyArg_ParseTuple(arguments, "O", &spill)) return NULL;
    Buffer *self = (Buffer *)new_object(type);
    if (self == NULL) return NULL;
    Py_INCREF(spill);
    self->spill = spill;
    self->fd = -1;
    return (PyObject *)self;
}

static PyObject *buffer_add(Buffer *self, PyObject *arguments)
{
    PyObject *frame, *touched;
    Span bytes;
    if (!PyArg_ParseTuple(arguments, "OO", &frame, &touched) || !span_of(frame, &bytes)) return NULL;
    if (!PyList_Check(touched)) {
        PyErr_SetString(PyExc_TypeError, "touched is a list");
        return NULL;
    }
    if (bytes.size > 0 && !self->closed) {
        unsigned char *to = buffer_room(self, bytes.size);
        if (to == NULL) return NULL;
        put(to, bytes.at, bytes.size);
        if (buffer_wrote(self, bytes.size, touched) < 0) return NULL;
    }
    return none();
}

static PyObject *buffer_flush_method(Buffer *self, PyObject *nothing)
{
    if (buffer_flush(self) < 0) return NULL;
    return none();
}

static PyObject *buffer_end(Buffer *self, PyObject *nothing)
{
    self->closed = 1;
    self->fd = -1;
    Py_CLEAR(self->spill);
    PyMem_Free(self->at);
    self->at = NULL;
    self->size = self->room = 0;
    return none();
}

static int buffer_traverse(Buffer *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->spill);
    return 0;
}

static int buffer_clear(Buffer *self)
{
    Py_CLEAR(self->spill);
    return 0;
}

static void buffer_dealloc(Buffer *self)
{
    PyObject_GC_UnTrack(self);
    buffer_clear(self);
    PyMem_Free(self->at);
    free_object((PyObject *)self);
}

static PyMemberDef BUFFER_MEMBERS[] = {
    {"fd", T_INT, offsetof(Buffer, fd), 0, NULL},
    {"closed", T_BOOL, offsetof(Buffer, closed), 0, NULL},
    {"congested", T_BOOL, offsetof(Buffer, congested), 0, NULL},
    {"size", T_PYSSIZET, offsetof(Buffer, size), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef BUFFER_METHODS[] = {
    {"add", (PyCFunction)(void (*)(void))buffer_add, METH_VARARGS, NULL},
    {"flush", (PyCFunction)(void (*)(void))buffer_flush_method, METH_NOARGS, NULL},
    {"end", (PyCFunction)(void (*)(void))buffer_end, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot BUFFER_SLOTS[] = {
    {Py_tp_new, buffer_new}, {Py_tp_dealloc, buffer_dealloc}, {Py_tp_traverse, buffer_traverse},
    {Py_tp_clear, buffer_clear}, {Py_tp_members, BUFFER_MEMBERS}, {Py_tp_methods, BUFFER_METHODS}, {0, NULL},
};

static PyType_Spec BUFFER_SPEC = {
    "selfhost_transport.accelerator._native.SendBuffer", sizeof(Buffer), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, BUFFER_SLOTS,
};

/* A lane: the way of the appends to one message */

/* 1, or 0 with an exception set. `template`: `(json, head, between)`; `buffers`: a tuple. */
static int group_of(State *state, PyObject *template, PyObject *buffers, Group *group)
{
    if (!PyTuple_Check(template) || PyTuple_Size(template) != 3 || !PyTuple_Check(buffers)) {
        PyErr_SetString(PyExc_TypeError, "a template is a tuple of three, its buffers are a tuple");
        return 0;
    }
    group->json = PyTuple_GetItem(template, 0) == Py_True;
    if (!span_of(PyTuple_GetItem(template, 1), &group->head) || !span_of(PyTuple_GetItem(template, 2), &group->between)) return 0;
    group->count = PyTuple_Size(buffers);
    if (group->head.size > MOST_BYTES || group->between.size > MOST_BYTES || group->count > MOST_BYTES) {
        PyErr_NoMemory();
        return 0;
    }
    group->buffers = PyMem_Malloc(sizeof(Buffer *) * (size_t)(group->count + 1));
    if (group->buffers == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t index = 0; index < group->count; index++) {
        PyObject *buffer = PyTuple_GetItem(buffers, index);
        if (Py_TYPE(buffer) != state->buffer) {
            PyErr_SetString(PyExc_TypeError, "a lane leads to buffers");
            return 0;
        }
        group->buffers[index] = (Buffer *)buffer;
    }
    return 1;
}

static PyObject *lane_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    State *state = PyType_GetModuleState(type);
    PyObject *last, *entry_head, *epoch, *templates, *buffers;
    Span position;
    if (state == NULL) return NULL;
    if (!PyArg_ParseTuple(arguments, "OOOO!O!", &last, &entry_head, &epoch, &PyTuple_Type, &templates, &PyTuple_Type, &buffers))
        return NULL;
    if (PyTuple_Size(templates) != PyTuple_Size(buffers)) {
        PyErr_SetString(PyExc_ValueError, "each template has its buffers");
        return NULL;
    }
    Lane *self = (Lane *)new_object(type);
    if (self == NULL) return NULL;
    Py_INCREF(arguments);
    self->held = arguments;
    if (!span_of(last, &position) || !span_of(entry_head, &self->entry_head) || !span_of(epoch, &self->epoch)) goto failed;
    if (position.size > (Py_ssize_t)sizeof(self->last)) {
        PyErr_SetString(PyExc_ValueError, "a position has 14 digits and 3 at most");
        goto failed;
    }
    put(self->last, position.at, position.size);
    self->last_size = position.size;
    Py_ssize_t count = PyTuple_Size(templates);
    if (count > MOST_BYTES / (Py_ssize_t)sizeof(Group)) { PyErr_NoMemory(); goto failed; }
    self->groups = PyMem_Calloc((size_t)count + 1, sizeof(Group));
    if (self->groups == NULL) { PyErr_NoMemory(); goto failed; }
    self->count = count;
    for (Py_ssize_t index = 0; index < count; index++)
        if (!group_of(state, PyTuple_GetItem(templates, index), PyTuple_GetItem(buffers, index), &self->groups[index])) goto failed;
    return (PyObject *)self;
failed:
    Py_DECREF((PyObject *)self);
    return NULL;
}

/* How many frames were written; -1: it is not the next append, or a socket is full; -2: an exception is set. */
static Py_ssize_t lane_take(Lane *self, PyObject *notification, PyObject *touched, unsigned long long *ms)
{
    Span payload;
    Append append;
    Py_ssize_t name_size = 0, written = 0;
    if (self->held == NULL) return -1;
    if (!span_of(notification, &payload)) return -2;
    for (Py_ssize_t group = 0; group < self->count; group++)
        for (Py_ssize_t index = 0; index < self->groups[group].count; index++)
            if (self->groups[group].buffers[index]->congested) return -1;
    int is_next = read_append(payload, (Span){self->last, self->last_size}, self->entry_head, self->epoch, &append, &name_size);
    if (is_next <= 0) return is_next < 0 ? -2 : -1;
    put(self->last, payload.at, name_size);
    self->last_size = name_size;
    *ms = append.ms;
    /* A full socket may end this lane while it is used. */
    Py_INCREF((PyObject *)self);
    for (Py_ssize_t number = 0; number < self->count; number++) {
        Group *group = &self->groups[number];
        Py_ssize_t payload_size, size = frame_size(&append, group->json, group->head, group->between, &payload_size);
        for (Py_ssize_t index = 0; index < group->count; index++) {
            Buffer *buffer = group->buffers[index];
            if (buffer->closed) continue;
            unsigned char *to = buffer_room(buffer, size);
            if (to == NULL) goto failed;
            if (put_frame(to, &append, group->json, group->head, group->between, payload_size) != to + size)
                Py_FatalError("selfhost_transport: a frame has another size than computed");
            if (buffer_wrote(buffer, size, touched) < 0) goto failed;
            written++;
        }
    }
    Py_DECREF((PyObject *)self);
    return written;
failed:
    Py_DECREF((PyObject *)self);
    return -2;
}

static PyObject *lane_take_method(Lane *self, PyObject *arguments)
{
    PyObject *notification, *touched;
    unsigned long long ms = 0;
    if (!PyArg_ParseTuple(arguments, "OO!", &notification, &PyList_Type, &touched)) return NULL;
    Py_ssize_t written = lane_take(self, notification, touched, &ms);
    if (written == -2) return NULL;
    if (written == -1) return none();
    return Py_BuildValue("(nK)", written, ms);
}

static PyObject *lane_last(Lane *self, void *nothing)
{
    return PyBytes_FromStringAndSize((char *)self->last, self->last_size);
}

static int lane_traverse(Lane *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->held);
    return 0;
}

/* Nothing points into what was held any more. */
static int lane_clear(Lane *self)
{
    Py_ssize_t count = self->count;
    self->count = 0;
    for (Py_ssize_t index = 0; index < count; index++) PyMem_Free(self->groups[index].buffers);
    PyMem_Free(self->groups);
    self->groups = NULL;
    Py_CLEAR(self->held);
    return 0;
}

static void lane_dealloc(Lane *self)
{
    PyObject_GC_UnTrack(self);
    lane_clear(self);
    free_object((PyObject *)self);
}

static PyMethodDef LANE_METHODS[] = {
    {"take", (PyCFunction)(void (*)(void))lane_take_method, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef LANE_GETSET[] = {{"last", (getter)lane_last, NULL, NULL, NULL}, {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot LANE_SLOTS[] = {
    {Py_tp_new, lane_new}, {Py_tp_dealloc, lane_dealloc}, {Py_tp_traverse, lane_traverse}, {Py_tp_clear, lane_clear},
    {Py_tp_methods, LANE_METHODS}, {Py_tp_getset, LANE_GETSET}, {0, NULL},
};

static PyType_Spec LANE_SPEC = {
    "selfhost_transport.accelerator._native.Lane", sizeof(Lane), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, LANE_SLOTS,
};

/* A way: the callback of one channel */

static PyObject *way_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    PyObject *callback;
    if (!PyArg_ParseTuple(arguments, "O", &callback)) return NULL;
    Way *self = (Way *)new_object(type);
    if (self == NULL) return NULL;
    Py_INCREF(callback);
    self->callback = callback;
    return (PyObject *)self;
}

static PyObject *way_call(Way *self, PyObject *arguments, PyObject *names)
{
    if (self->callback == NULL) return none();
    return PyObject_Call(self->callback, arguments, names);
}

static int way_traverse(Way *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->callback);
    Py_VISIT(self->lane);
    return 0;
}

static int way_clear(Way *self)
{
    Py_CLEAR(self->callback);
    Py_CLEAR(self->lane);
    return 0;
}

static void way_dealloc(Way *self)
{
    PyObject_GC_UnTrack(self);
    way_clear(self);
    free_object((PyObject *)self);
}

static PyMemberDef WAY_MEMBERS[] = {
    {"lane", T_OBJECT, offsetof(Way, lane), 0, NULL},
    {"waiting", T_BOOL, offsetof(Way, waiting), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot WAY_SLOTS[] = {
    {Py_tp_new, way_new}, {Py_tp_dealloc, way_dealloc}, {Py_tp_traverse, way_traverse}, {Py_tp_clear, way_clear},
    {Py_tp_call, way_call}, {Py_tp_members, WAY_MEMBERS}, {0, NULL},
};

static PyType_Spec WAY_SPEC = {
    "selfhost_transport.accelerator._native.Way", sizeof(Way), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, WAY_SLOTS,
};

/* 1 where the reply is a message, with its channel and payload. */
static int read_message(PyObject *reply, PyObject **channel, PyObject **payload)
{
    Span kind;
    if (!PyList_Check(reply) || PyList_Size(reply) != 3) return 0;
    PyObject *name = PyList_GetItem(reply, 0);
    *channel = PyList_GetItem(reply, 1);
    *payload = PyList_GetItem(reply, 2);
    if (!PyBytes_Check(name) || !PyBytes_Check(*channel) || !PyBytes_Check(*payload) || !span_of(name, &kind)) return 0;
    return (kind.size == 7 && memcmp(kind.at, "message", 7) == 0) || (kind.size == 8 && memcmp(kind.at, "smessage", 8) == 0);
}

static PyObject *hand_out(PyObject *module, PyObject *arguments)
{
    State *state = PyModule_GetState(module);
    PyObject *replies, *ways, *touched;
    Py_ssize_t at, until, written = 0, begun;
    unsigned long long ms = 0;
    if (!PyArg_ParseTuple(arguments, "O!nnO!O!", &PyList_Type, &replies, &at, &until, &PyDict_Type, &ways, &PyList_Type, &touched))
        return NULL;
    begun = at;
    for (; at >= 0 && at < until && at < PyList_Size(replies); at++) {
        PyObject *channel, *payload;
        if (!read_message(PyList_GetItem(replies, at), &channel, &payload)) break;
        PyObject *way = PyDict_GetItemWithError(ways, channel);
        if (way == NULL) {
            if (PyErr_Occurred()) return NULL;
            break;
        }
        if (Py_TYPE(way) != state->way || ((Way *)way)->waiting) break;
        PyObject *lane = ((Way *)way)->lane;
        if (lane == NULL || Py_TYPE(lane) != state->lane) break;
        Py_ssize_t frames = lane_take((Lane *)lane, payload, touched, &ms);
        if (frames == -2) return NULL;
        if (frames == -1) break;
        written += frames;
    }
    return Py_BuildValue("(nnK)", at, written, at > begun ? ms : 0ull);
}

static PyObject *send_all(PyObject *module, PyObject *buffers)
{
    State *state = PyModule_GetState(module);
    if (!PyList_Check(buffers)) {
        PyErr_SetString(PyExc_TypeError, "buffers are a list");
        return NULL;
    }
    for (Py_ssize_t index = 0; index < PyList_Size(buffers); index++) {
        PyObject *buffer = PyList_GetItem(buffers, index);
        if (Py_TYPE(buffer) != state->buffer) {
            PyErr_SetString(PyExc_TypeError, "buffers are SendBuffers");
            return NULL;
        }
        Py_INCREF(buffer);
        int done = buffer_flush((Buffer *)buffer);
        Py_DECREF(buffer);
        if (done < 0) return NULL;
    }
    return none();
}

static int add_types(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->buffer = (PyTypeObject *)PyType_FromModuleAndSpec(module, &BUFFER_SPEC, NULL);
    state->lane = (PyTypeObject *)PyType_FromModuleAndSpec(module, &LANE_SPEC, NULL);
    state->way = (PyTypeObject *)PyType_FromModuleAndSpec(module, &WAY_SPEC, NULL);
    if (state->buffer == NULL || state->lane == NULL || state->way == NULL) return -1;
    if (PyModule_AddType(module, state->buffer) < 0 || PyModule_AddType(module, state->lane) < 0) return -1;
    return PyModule_AddType(module, state->way);
}

static int traverse_module(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->buffer);
    Py_VISIT(state->lane);
    Py_VISIT(state->way);
    return 0;
}

static int clear_module(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->buffer);
    Py_CLEAR(state->lane);
    Py_CLEAR(state->way);
    return 0;
}
