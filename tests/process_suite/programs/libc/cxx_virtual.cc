#include "suite.h"

#include <map>
#include <memory>
#include <string>
#include <typeinfo>

/* Tables of virtual functions and type information, used from objects of before the fork. */
struct Shape {
    virtual ~Shape() = default;
    virtual int corners() const = 0;
};
struct Square : Shape {
    int corners() const override { return 4; }
};
struct Triangle : Shape {
    int corners() const override { return 3; }
};

int main()
{
    about("C++ objects with virtual functions, maps and type information");
    std::map<std::string, std::unique_ptr<Shape>> shapes;
    shapes["square"] = std::make_unique<Square>();
    shapes["triangle"] = std::make_unique<Triangle>();
    prepare_here();
    Shape *square = shapes.at("square").get();
    check(square->corners() == 4 && dynamic_cast<Triangle *>(square) == nullptr);
    check(typeid(*square) == typeid(Square));
    shapes["another"] = std::make_unique<Triangle>();
    check(shapes.size() == 3 && shapes["another"]->corners() == 3);
    return carried();
}
