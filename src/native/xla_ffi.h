// The structs with which XLA calls a function, those members that the handlers use: the C API of
// its foreign function interface, version 0 (xla/ffi/api/c_api.h), which the package of JAX has as
// well. Later minor versions only append members, which `struct_size` tells.
#pragma once

#include <cstddef>
#include <cstdint>

namespace logitlab::xla {

struct Extension {
  size_t struct_size;
  int type;  // kMetadataExtension
  Extension* next;
};
constexpr int kMetadataExtension = 1;

struct ApiVersion {
  size_t struct_size;
  Extension* extensions;
  int major_version, minor_version;
};

struct Error;
struct ErrorArgs {
  size_t struct_size;
  Extension* extensions;
  const char* message;
  int code;
};
constexpr int kInvalidArgument = 3, kResourceExhausted = 8, kInternal = 13;

struct Api {
  size_t struct_size;
  Extension* extensions;
  ApiVersion version;
  const void* internal;
  Error* (*create_error)(ErrorArgs*);
};

// Arrays are contiguous in C order.
struct Buffer {
  size_t struct_size;
  Extension* extensions;
  int type;
  void* data;
  int64_t rank;
  int64_t* shape;
};
constexpr int kBufferArgument = 1;
constexpr int kS32 = 4, kS64 = 5, kF16 = 10, kF32 = 11, kF64 = 12, kBF16 = 16;

struct Buffers {
  size_t struct_size;
  Extension* extensions;
  int64_t size;
  int* types;
  void** items;
};

struct Scalar {
  int type;
  void* value;
};
struct Name {
  const char* text;
  size_t size;
};
struct Attributes {  // sorted by name
  size_t struct_size;
  Extension* extensions;
  int64_t size;
  int* types;
  Name** names;
  void** items;
};
constexpr int kScalarAttribute = 3;

struct CallFrame {
  size_t struct_size;
  Extension* extensions;
  const Api* api;
  void* context;
  int stage;  // kExecute
  Buffers arguments, results;
  Attributes attributes;
};
constexpr int kExecute = 3;

// What XLA asks for when a handler is registered.
struct Metadata {
  size_t struct_size;
  ApiVersion version;
  uint32_t traits;
};
struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

}  // namespace logitlab::xla
