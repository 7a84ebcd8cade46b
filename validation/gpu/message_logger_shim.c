/* vLLM 0.19.1's _C is built against torch 2.10, which exports c10::MessageLogger::MessageLogger(char const*, int,
   int, bool); torch 2.11 does not. It is reached from fatal log lines alone, so to abort loudly is right. */
#include <stdio.h>
#include <stdlib.h>

void _ZN3c1013MessageLoggerC1EPKciib(void *self, const char *file, int line, int severity, _Bool exit_on_fatal) {
    (void)self, (void)severity, (void)exit_on_fatal;
    fprintf(stderr, "c10::MessageLogger called from %s:%d\n", file, line);
    abort();
}
