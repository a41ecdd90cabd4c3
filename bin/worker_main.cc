#include <cstdio>
int main() { std::puts("llorch"); return 0; }
