-- Exactly these functions and modules. What is added here also gets a test of its own.
SELECT DISTINCT name, narg FROM pragma_function_list WHERE name LIKE 'litestream%' ORDER BY 1, 2;
SELECT name FROM pragma_module_list WHERE name LIKE 'litestream%' ORDER BY 1;
