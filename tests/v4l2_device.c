/* A simulated webcam for tests: loaded in front of the C library (LD_PRELOAD), it answers the calls of Video4Linux for
 * the device file V4L2_DEVICE as a driver would, from the folder V4L2_STATE:
 *   formats    what the webcam offers, as `v4l2-ctl --list-formats-ext` prints it
 *   FOURCC     the bytes of each picture in this format; without it, all bytes are 128
 *   asked      written: the format, size and rate that were set last
 *   denied, unplugged, busy, metadata   while such a file exists, the device is in that state
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_MODES 256
#define BUFFERS 4
#define BUFFER_BYTES (8 << 20)

struct mode { unsigned fourcc, width, height; double fps; };

static struct mode modes[MAX_MODES], now;
static int mode_count, device = -1, queued[BUFFERS], queue_length;

static const char *state_file(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("V4L2_STATE"), name);
    return path;
}

static int is_in_state(const char *name) { return access(state_file(name), F_OK) == 0; }

static int fail(int number) { errno = number; return -1; }

static void load_modes(void) {
    char line[256], name[5];
    struct mode mode = {0};
    FILE *file = fopen(state_file("formats"), "r");
    for (mode_count = 0; file && fgets(line, sizeof line, file);) {
        sscanf(line, " [%*d]: '%4c'", name) == 1 && (memcpy(&mode.fourcc, name, 4), 1);
        sscanf(line, " Size: Discrete %ux%u", &mode.width, &mode.height);
        if (sscanf(line, " Interval: Discrete %*fs (%lf fps)", &mode.fps) == 1 && mode_count < MAX_MODES)
            modes[mode_count++] = mode;
    }
    if (file) fclose(file);
    now = modes[0];
}

static int open_device(void) {
    if (is_in_state("unplugged")) return fail(ENOENT);
    if (is_in_state("denied")) return fail(EACCES);
    load_modes();
    device = memfd_create("webcam", 0);
    if (ftruncate(device, (off_t)BUFFERS * BUFFER_BYTES) < 0) return -1;
    queue_length = 0;
    return device;
}

static void tell_what_was_asked(void) {
    FILE *file = fopen(state_file("asked"), "w");
    fprintf(file, "%.4s %ux%u %g", (char *)&now.fourcc, now.width, now.height, now.fps);
    fclose(file);
}

/* Entry `index` of the distinct formats (level 0), sizes of a format (1) or rates of a size (2). */
static const struct mode *entry(unsigned index, int level, unsigned fourcc, unsigned width, unsigned height) {
    for (int i = 0; i < mode_count; i++) {
        const struct mode *one = &modes[i], *before = i ? one - 1 : NULL;
        if (level > 0 && one->fourcc != fourcc) continue;
        if (level > 1 && (one->width != width || one->height != height)) continue;
        if (level == 0 && before && before->fourcc == one->fourcc) continue;
        if (level == 1 && before && before->fourcc == fourcc && before->width == one->width
            && before->height == one->height) continue;
        if (index-- == 0) return one;
    }
    return NULL;
}

static int is_offered(const struct v4l2_pix_format *asked, const struct mode *one) {
    return one->fourcc == asked->pixelformat && one->width == asked->width && one->height == asked->height;
}

static int set_format(struct v4l2_format *format) {
    struct v4l2_pix_format *pix = &format->fmt.pix;
    if (is_in_state("busy")) return fail(EBUSY);
    for (int i = 0; i < mode_count; i++)
        if (is_offered(pix, &modes[i])) {
            now = modes[i];
            tell_what_was_asked();
            break;
        }
    return 0;
}

static void get_format(struct v4l2_format *format) {
    struct v4l2_pix_format *pix = &format->fmt.pix;
    memset(pix, 0, sizeof *pix);
    pix->pixelformat = now.fourcc;
    pix->width = now.width;
    pix->height = now.height;
    pix->field = V4L2_FIELD_NONE;
    pix->bytesperline = now.fourcc == V4L2_PIX_FMT_YUYV ? 2 * now.width : now.width;
    pix->sizeimage = 2 * now.width * now.height;
}

static void rate(struct v4l2_streamparm *parameters, int set) {
    struct v4l2_fract *interval = &parameters->parm.capture.timeperframe;
    for (int i = 0; set && i < mode_count; i++) {
        struct v4l2_pix_format pix = {.pixelformat = now.fourcc, .width = now.width, .height = now.height};
        if (is_offered(&pix, &modes[i]) && interval->numerator
            && (int)modes[i].fps == (int)(interval->denominator / interval->numerator)) now = modes[i];
    }
    if (set) tell_what_was_asked();
    parameters->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
    interval->numerator = 1000;
    interval->denominator = (unsigned)(now.fps * 1000);
}

static int take_picture(struct v4l2_buffer *buffer) {
    char name[5] = {0};
    if (is_in_state("unplugged")) return fail(ENODEV);
    if (!queue_length) return fail(EAGAIN);
    usleep((useconds_t)(1e6 / now.fps));
    buffer->index = (unsigned)queued[0];
    memmove(queued, queued + 1, sizeof queued - sizeof *queued);
    queue_length--;
    unsigned char *bytes = mmap(NULL, BUFFER_BYTES, PROT_WRITE, MAP_SHARED, device, (off_t)buffer->index * BUFFER_BYTES);
    buffer->bytesused = 2 * now.width * now.height;
    memset(bytes, 128, buffer->bytesused);
    memcpy(name, &now.fourcc, 4);
    FILE *file = fopen(state_file(name), "r");
    if (file) {
        buffer->bytesused = (unsigned)fread(bytes, 1, BUFFER_BYTES, file);
        fclose(file);
    }
    munmap(bytes, BUFFER_BYTES);
    buffer->length = BUFFER_BYTES;
    buffer->flags = V4L2_BUF_FLAG_DONE;
    return 0;
}

static int list_format(struct v4l2_fmtdesc *asked) {
    const struct mode *found = entry(asked->index, 0, 0, 0, 0);
    if (!found) return fail(EINVAL);
    asked->pixelformat = found->fourcc;
    return 0;
}

static int list_size(struct v4l2_frmsizeenum *asked) {
    const struct mode *found = entry(asked->index, 1, asked->pixel_format, 0, 0);
    if (!found) return fail(EINVAL);
    asked->type = V4L2_FRMSIZE_TYPE_DISCRETE;
    asked->discrete.width = found->width;
    asked->discrete.height = found->height;
    return 0;
}

static int list_interval(struct v4l2_frmivalenum *asked) {
    const struct mode *found = entry(asked->index, 2, asked->pixel_format, asked->width, asked->height);
    if (!found) return fail(EINVAL);
    asked->type = V4L2_FRMIVAL_TYPE_DISCRETE;
    asked->discrete.numerator = 1000;
    asked->discrete.denominator = (unsigned)(found->fps * 1000);
    return 0;
}

static int describe(struct v4l2_capability *capability) {
    memset(capability, 0, sizeof *capability);
    strcpy((char *)capability->driver, "uvcvideo");
    capability->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING | V4L2_CAP_DEVICE_CAPS;
    capability->device_caps = is_in_state("metadata") ? V4L2_CAP_META_CAPTURE | V4L2_CAP_STREAMING
                                                      : V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
    return 0;
}

static int answer(unsigned long request, void *argument) {
    if (is_in_state("unplugged")) return fail(ENODEV);
    struct v4l2_buffer *buffer = argument;
    switch (request) {
    case VIDIOC_QUERYCAP: return describe(argument);
    case VIDIOC_ENUM_FMT: return list_format(argument);
    case VIDIOC_ENUM_FRAMESIZES: return list_size(argument);
    case VIDIOC_ENUM_FRAMEINTERVALS: return list_interval(argument);
    case VIDIOC_G_FMT: get_format(argument); return 0;
    case VIDIOC_S_FMT: if (set_format(argument)) return -1; /* fall through */
    case VIDIOC_TRY_FMT: get_format(argument); return 0;
    case VIDIOC_G_PARM: rate(argument, 0); return 0;
    case VIDIOC_S_PARM: rate(argument, 1); return 0;
    case VIDIOC_G_INPUT: *(int *)argument = 0; return 0;
    case VIDIOC_ENUMINPUT: case VIDIOC_S_INPUT: case VIDIOC_STREAMON: return 0;
    case VIDIOC_STREAMOFF: queue_length = 0; return 0;
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *wanted = argument;
        if (wanted->count > BUFFERS) wanted->count = BUFFERS;
        queue_length = 0;
        return 0;
    }
    case VIDIOC_QUERYBUF:
        buffer->m.offset = buffer->index * BUFFER_BYTES;
        buffer->length = BUFFER_BYTES;
        return 0;
    case VIDIOC_QBUF: queued[queue_length++] = (int)buffer->index; return 0;
    case VIDIOC_DQBUF: return take_picture(buffer);
    default: return fail(ENOTTY);
    }
}

int ioctl(int file, unsigned long request, ...) {
    static int (*next)(int, unsigned long, void *);
    if (!next) next = dlsym(RTLD_NEXT, "ioctl");
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return file >= 0 && file == device ? answer((unsigned)request, argument) : next(file, request, argument);
}

static int open_any(const char *symbol, const char *path, int flags, mode_t mode) {
    const char *ours = getenv("V4L2_DEVICE");
    if (ours && strcmp(path, ours) == 0) return open_device();
    int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, symbol);
    return next(path, flags, mode);
}

#define OPEN(symbol)                                                                                                   \
    int symbol(const char *path, int flags, ...) {                                                                     \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0;                                   \
        va_end(arguments);                                                                                             \
        return open_any(#symbol, path, flags, mode);                                                                   \
    }

OPEN(open)
OPEN(open64)

int close(int file) {
    static int (*next)(int);
    if (!next) next = dlsym(RTLD_NEXT, "close");
    if (file >= 0 && file == device) device = -1;
    return next(file);
}
