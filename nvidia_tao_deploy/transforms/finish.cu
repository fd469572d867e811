// The second half of an image transform: decoded pixels resized, placed, normalized and stored as a network's input.
// One thread per pixel of the canvas, one grid layer per image. Compiled to finish.ptx by scripts/compile_kernels.py.
//
// A table gives for each column (or row) of the canvas which source pixels it takes and by which weights:
// table[0] = weights per entry; then per entry: first source index, count, weights. Count 0: the fill level.

typedef unsigned char uint8;

struct Row {
    const uint8* pixels;  // (height, width, channels), contiguous; null: the row is finished already
    const int* across;    // table of columns
    const int* down;      // table of rows
    int width;            // of the source
    int down_first;       // rows are resized before columns
};

struct Store {
    int channels, height, width;
    int flipped;                                                 // channel c is stored as channels - 1 - c
    long long row_stride, channel_stride, y_stride, x_stride;  // in values
    int half;                                                    // float16 instead of float32
    int scaling;                                                 // 0: none, 1: divide by factor, 2: multiply by it
    float factor;
    float mean[3], deviation[3];                                 // by stored channel
    float fill[3];                                               // grey levels, by source channel
};

__device__ void store(const Store& to, void* out, long long row, int c, int y, int x, float value) {
    const int channel = to.flipped ? to.channels - 1 - c : c;
    // The CPU's steps, each rounded on its own.
    if (to.scaling == 1) value = __fdiv_rn(value, to.factor);
    if (to.scaling == 2) value = __fmul_rn(value, to.factor);
    if (to.mean[channel] != 0.0f) value = __fsub_rn(value, to.mean[channel]);
    if (to.deviation[channel] != 1.0f) value = __fdiv_rn(value, to.deviation[channel]);
    const long long at = row * to.row_stride + channel * to.channel_stride + y * to.y_stride + x * to.x_stride;
    if (to.half) {
        unsigned short bits;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
        static_cast<unsigned short*>(out)[at] = bits;
    } else {
        static_cast<float*>(out)[at] = value;
    }
}

// Pillow: 22-bit fixed-point weights, both passes rounded to whole grey levels.
__device__ int whole_level(int sum) { return min(max(sum >> 22, 0), 255); }

__device__ void fixed(const Row& row, const int* across, const int* down, int channels, float* levels) {
    const long long step_x = channels, step_y = (long long)row.width * channels;
    const uint8* corner = row.pixels + down[0] * step_y + across[0] * step_x;
    const int *outer = row.down_first ? across : down, *inner = row.down_first ? down : across;
    const long long outer_step = row.down_first ? step_x : step_y, inner_step = row.down_first ? step_y : step_x;
    int sums[3];
    for (int c = 0; c < channels; c++) sums[c] = 1 << 21;
    for (int j = 0; j < outer[1]; j++) {
        const uint8* line = corner + j * outer_step;
        int first[3];
        for (int c = 0; c < channels; c++) first[c] = 1 << 21;
        for (int i = 0; i < inner[1]; i++)
            for (int c = 0; c < channels; c++) first[c] += line[i * inner_step + c] * inner[2 + i];
        for (int c = 0; c < channels; c++) sums[c] += whole_level(first[c]) * outer[2 + j];
    }
    for (int c = 0; c < channels; c++) levels[c] = whole_level(sums[c]);
}

// OpenCV INTER_LINEAR on float32: columns first, then rows.
__device__ void linear(const Row& row, const int* across, const int* down, int channels, float* levels) {
    for (int c = 0; c < channels; c++) levels[c] = 0.0f;
    for (int j = 0; j < down[1]; j++) {
        const uint8* line = row.pixels + ((long long)(down[0] + j) * row.width + across[0]) * channels;
        for (int c = 0; c < channels; c++) {
            float inner = 0.0f;
            for (int i = 0; i < across[1]; i++) inner += line[i * channels + c] * __int_as_float(across[2 + i]);
            levels[c] += inner * __int_as_float(down[2 + j]);
        }
    }
}

__device__ void finish(const Row* rows, const Store& to, void* out, bool is_fixed) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    const Row row = rows[blockIdx.z];
    if (x >= to.width || y >= to.height || row.pixels == 0) return;
    const int* across = row.across + 1 + x * (2 + row.across[0]);
    const int* down = row.down + 1 + y * (2 + row.down[0]);
    float levels[3];
    if (across[1] == 0 || down[1] == 0)
        for (int c = 0; c < to.channels; c++) levels[c] = to.fill[c];
    else if (is_fixed)
        fixed(row, across, down, to.channels, levels);
    else
        linear(row, across, down, to.channels, levels);
    for (int c = 0; c < to.channels; c++) store(to, out, blockIdx.z, c, y, x, levels[c]);
}

extern "C" __global__ void finish_fixed(const Row* rows, const Store to, void* out) { finish(rows, to, out, true); }
extern "C" __global__ void finish_linear(const Row* rows, const Store to, void* out) { finish(rows, to, out, false); }
