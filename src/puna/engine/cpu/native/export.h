/* What Python may call: every other function stays inside its library. */
#ifndef PUNA_EXPORT_H
#define PUNA_EXPORT_H

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#endif
