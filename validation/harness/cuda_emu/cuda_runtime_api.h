/// The part of CUDA's runtime interface that this project uses, for the emulated device (see cuda_runtime.h here): the same names,
/// values and types. Readable as C17 and as C++17.
#ifndef HIRL_EMU_CUDA_RUNTIME_API_H
#define HIRL_EMU_CUDA_RUNTIME_API_H

#include <stddef.h>
#include <stdint.h>

#define HIRL_CUDA_EMULATED 1
#define CUDART_VERSION 13000
#define CUDARTAPI

#ifdef __cplusplus
extern "C" {
#define HIRL_EMU_DEFAULT(value) = value
#else
#define HIRL_EMU_DEFAULT(value)
#endif

// Name, value, text.
#define HIRL_EMU_CUDA_ERRORS(X)                                                                  \
    X(cudaSuccess, 0, "no error")                                                                \
    X(cudaErrorInvalidValue, 1, "invalid argument")                                              \
    X(cudaErrorMemoryAllocation, 2, "out of memory")                                             \
    X(cudaErrorInitializationError, 3, "initialization error")                                   \
    X(cudaErrorInvalidConfiguration, 9, "invalid configuration argument")                        \
    X(cudaErrorInvalidPitchValue, 12, "invalid pitch argument")                                  \
    X(cudaErrorInvalidDevicePointer, 17, "invalid device pointer")                               \
    X(cudaErrorInvalidMemcpyDirection, 21, "invalid copy direction for memcpy")                  \
    X(cudaErrorInsufficientDriver, 35, "driver version is insufficient for runtime version")     \
    X(cudaErrorInvalidDeviceFunction, 98, "invalid device function")                             \
    X(cudaErrorNoDevice, 100, "no CUDA-capable device is detected")                              \
    X(cudaErrorInvalidDevice, 101, "invalid device ordinal")                                     \
    X(cudaErrorNoKernelImageForDevice, 209, "no kernel image is available for the device")       \
    X(cudaErrorInvalidResourceHandle, 400, "invalid resource handle")                            \
    X(cudaErrorNotReady, 600, "device not ready")                                                \
    X(cudaErrorIllegalAddress, 700, "an illegal memory access was encountered")                  \
    X(cudaErrorLaunchOutOfResources, 701, "too many resources requested for launch")             \
    X(cudaErrorHostMemoryAlreadyRegistered, 712, "the memory is already registered")             \
    X(cudaErrorHostMemoryNotRegistered, 713, "the memory is not registered")                     \
    X(cudaErrorLaunchFailure, 719, "unspecified launch failure")                                 \
    X(cudaErrorNotSupported, 801, "operation not supported")                                     \
    X(cudaErrorStreamCaptureUnsupported, 900, "operation not permitted while capturing")         \
    X(cudaErrorStreamCaptureInvalidated, 901, "operation failed due to an earlier error")        \
    X(cudaErrorStreamCaptureUnjoined, 904, "capture was not joined to original stream")          \
    X(cudaErrorStreamCaptureIsolation, 905, "dependency created on uncaptured work in a stream") \
    X(cudaErrorStreamCaptureWrongThread, 908, "attempt to end a thread-local capture elsewhere") \
    X(cudaErrorUnknown, 999, "unknown error")

typedef enum cudaError {
#define HIRL_EMU_ERROR_VALUE(name, value, text) name = value,
    HIRL_EMU_CUDA_ERRORS(HIRL_EMU_ERROR_VALUE)
#undef HIRL_EMU_ERROR_VALUE
} cudaError_t;

typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;
typedef void (*cudaHostFn_t)(void *user_data);

#define cudaStreamLegacy ((cudaStream_t)0x1)

enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
enum { cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
enum {
    cudaHostAllocDefault = 0,
    cudaHostAllocPortable = 1,
    cudaHostAllocMapped = 2,
    cudaHostAllocWriteCombined = 4
};
enum { cudaHostRegisterDefault = 0, cudaHostRegisterPortable = 1 };
enum {
    cudaDeviceScheduleAuto = 0,
    cudaDeviceScheduleSpin = 1,
    cudaDeviceScheduleYield = 2,
    cudaDeviceScheduleBlockingSync = 4
};

enum cudaMemcpyKind {
    cudaMemcpyHostToHost = 0,
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
    cudaMemcpyDefault = 4
};

enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMaxBlockDimX = 2,
    cudaDevAttrMaxBlockDimY = 3,
    cudaDevAttrMaxBlockDimZ = 4,
    cudaDevAttrMaxGridDimX = 5,
    cudaDevAttrMaxGridDimY = 6,
    cudaDevAttrMaxGridDimZ = 7,
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrWarpSize = 10,
    cudaDevAttrMaxRegistersPerBlock = 12,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrIntegrated = 18,
    cudaDevAttrPciBusId = 33,
    cudaDevAttrPciDeviceId = 34,
    cudaDevAttrL2CacheSize = 38,
    cudaDevAttrMaxThreadsPerMultiProcessor = 39,
    cudaDevAttrUnifiedAddressing = 41,
    cudaDevAttrPciDomainId = 50,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
    cudaDevAttrMaxRegistersPerMultiprocessor = 82,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
    cudaDevAttrMemoryPoolsSupported = 115
};

enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9
};

enum cudaMemoryType {
    cudaMemoryTypeUnregistered = 0,
    cudaMemoryTypeHost = 1,
    cudaMemoryTypeDevice = 2,
    cudaMemoryTypeManaged = 3
};

enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal = 0,
    cudaStreamCaptureModeThreadLocal = 1,
    cudaStreamCaptureModeRelaxed = 2
};

enum cudaStreamCaptureStatus {
    cudaStreamCaptureStatusNone = 0,
    cudaStreamCaptureStatusActive = 1,
    cudaStreamCaptureStatusInvalidated = 2
};

struct cudaPointerAttributes {
    enum cudaMemoryType type;
    int device;
    void *devicePointer;
    void *hostPointer;
};

typedef struct CUuuid_st {
    char bytes[16];
} cudaUUID_t;

struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    size_t totalGlobalMem;
    size_t sharedMemPerBlock;
    int regsPerBlock;
    int warpSize;
    size_t memPitch;
    int maxThreadsPerBlock;
    int maxThreadsDim[3];
    int maxGridSize[3];
    size_t totalConstMem;
    int major;
    int minor;
    int multiProcessorCount;
    int integrated;
    int canMapHostMemory;
    int concurrentKernels;
    int ECCEnabled;
    int pciBusID;
    int pciDeviceID;
    int pciDomainID;
    int asyncEngineCount;
    int unifiedAddressing;
    int memoryBusWidth;
    int l2CacheSize;
    int maxThreadsPerMultiProcessor;
    size_t sharedMemPerMultiprocessor;
    int regsPerMultiprocessor;
    int managedMemory;
    size_t sharedMemPerBlockOptin;
};

struct cudaFuncAttributes {
    size_t sharedSizeBytes;
    size_t constSizeBytes;
    size_t localSizeBytes;
    int maxThreadsPerBlock;
    int numRegs;
    int ptxVersion;
    int binaryVersion;
    int maxDynamicSharedSizeBytes;
};

// Vectors: the alignments are CUDA's.
#define HIRL_EMU_VECTOR2(type, name, align)       \
    struct __attribute__((aligned(align))) name { \
        type x, y;                                \
    };
#define HIRL_EMU_VECTOR3(type, name) \
    struct name {                    \
        type x, y, z;                \
    };
#define HIRL_EMU_VECTOR4(type, name, align)       \
    struct __attribute__((aligned(align))) name { \
        type x, y, z, w;                          \
    };
HIRL_EMU_VECTOR2(char, char2, 2)
HIRL_EMU_VECTOR4(char, char4, 4)
HIRL_EMU_VECTOR2(unsigned char, uchar2, 2)
HIRL_EMU_VECTOR4(unsigned char, uchar4, 4)
HIRL_EMU_VECTOR2(short, short2, 4)
HIRL_EMU_VECTOR4(short, short4, 8)
HIRL_EMU_VECTOR2(unsigned short, ushort2, 4)
HIRL_EMU_VECTOR4(unsigned short, ushort4, 8)
HIRL_EMU_VECTOR2(int, int2, 8)
HIRL_EMU_VECTOR3(int, int3)
HIRL_EMU_VECTOR4(int, int4, 16)
HIRL_EMU_VECTOR2(unsigned, uint2, 8)
HIRL_EMU_VECTOR3(unsigned, uint3)
HIRL_EMU_VECTOR4(unsigned, uint4, 16)
HIRL_EMU_VECTOR2(long long, longlong2, 16)
HIRL_EMU_VECTOR2(unsigned long long, ulonglong2, 16)
HIRL_EMU_VECTOR2(float, float2, 8)
HIRL_EMU_VECTOR3(float, float3)
HIRL_EMU_VECTOR4(float, float4, 16)
HIRL_EMU_VECTOR2(double, double2, 16)
typedef struct char2 char2;
typedef struct char4 char4;
typedef struct uchar2 uchar2;
typedef struct uchar4 uchar4;
typedef struct short2 short2;
typedef struct short4 short4;
typedef struct ushort2 ushort2;
typedef struct ushort4 ushort4;
typedef struct int2 int2;
typedef struct int3 int3;
typedef struct int4 int4;
typedef struct uint2 uint2;
typedef struct uint3 uint3;
typedef struct uint4 uint4;
typedef struct longlong2 longlong2;
typedef struct ulonglong2 ulonglong2;
typedef struct float2 float2;
typedef struct float3 float3;
typedef struct float4 float4;
typedef struct double2 double2;

struct dim3 {
    unsigned x, y, z;
#ifdef __cplusplus
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return uint3{x, y, z}; }
#endif
};
typedef struct dim3 dim3;

// Devices.
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaSetDeviceFlags(unsigned flags);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device);
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device);
cudaError_t cudaDeviceGetPCIBusId(char *text, int len, int device);
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaDeviceReset(void);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaDriverGetVersion(int *version);

// Errors.
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
const char *cudaGetErrorName(cudaError_t error);
const char *cudaGetErrorString(cudaError_t error);

// Memory.
cudaError_t cudaMalloc(void **ptr, size_t bytes);
cudaError_t cudaFree(void *ptr);
cudaError_t cudaMallocHost(void **ptr, size_t bytes);
cudaError_t cudaHostAlloc(void **ptr, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *ptr);
cudaError_t cudaHostRegister(void *ptr, size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void *ptr);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *ptr);
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream HIRL_EMU_DEFAULT(0));
cudaError_t cudaMemcpy2D(void *dst, size_t dst_pitch, const void *src, size_t src_pitch,
                         size_t width, size_t height, enum cudaMemcpyKind kind);
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream HIRL_EMU_DEFAULT(0));
cudaError_t cudaMemset(void *ptr, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *ptr, int value, size_t bytes,
                            cudaStream_t stream HIRL_EMU_DEFAULT(0));

// Streams and events.
cudaError_t cudaStreamCreate(cudaStream_t *stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
                                unsigned flags HIRL_EMU_DEFAULT(0));
cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned *flags);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *user_data);
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream HIRL_EMU_DEFAULT(0));
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end);

// Graphs: linear captures of one stream and of those that join it by events.
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags HIRL_EMU_DEFAULT(0));
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

// Functions.
cudaError_t cudaFuncSetAttribute(const void *func, enum cudaFuncAttribute attr, int value);
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *func);
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n_blocks, const void *func,
                                                          int block_size, size_t dynamic_shared);

#ifdef __cplusplus
}
#endif
#endif
